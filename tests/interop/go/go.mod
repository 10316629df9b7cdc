module interop

go 1.24.1

require (
	github.com/cmd-stream/cmd-stream-go v0.6.2
	github.com/mus-format/common-go v0.0.0-20260324174526-3d8f1741b5a2
	github.com/mus-format/mus-stream-go v0.10.1
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/ymz-ncnk/jointwork-go v0.0.0-20240428103805-1ee224bde88a // indirect
	github.com/ymz-ncnk/multierr-go v0.0.0-20230813140901-5e9302c2e02a // indirect
	golang.org/x/exp v0.0.0-20250305212735-054e65f0b394 // indirect
)
