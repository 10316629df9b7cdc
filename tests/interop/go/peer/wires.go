package main

import (
	"encoding/json"
	"fmt"
	"reflect"

	cln "github.com/cmd-stream/cmd-stream-go/client"
	"github.com/cmd-stream/cmd-stream-go/core"
	srv "github.com/cmd-stream/cmd-stream-go/server"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"interop/calc"
	"interop/calcpb"
	"interop/tagged"
)

// A wire is a codec of both sides, and how its values are told over stdin and stdout.
type wire struct {
	client   cln.Codec[calc.Receiver]
	server   srv.Codec[calc.Receiver]
	commands []calc.Cmd
	text     tagged.Format
}

var protoText = tagged.Format{
	Marshal: func(v any) ([]byte, error) { return protojson.Marshal(v.(proto.Message)) },
	Unmarshal: func(text []byte, v any) error {
		return protojson.Unmarshal(text, v.(proto.Message))
	},
}

func wireOf(codec string) (wire, error) {
	switch codec {
	case "json":
		return wire{
			tagged.New(tagged.JSON, calc.Commands, calc.Results, tagged.Unlimited),
			tagged.New(tagged.JSON, calc.Results, calc.Commands, tagged.Unlimited),
			calc.Commands, tagged.JSON,
		}, nil
	case "mus":
		return wire{calc.ClientMUS, calc.ServerMUS, calc.Commands, tagged.JSON}, nil
	case "protobuf":
		return wire{
			tagged.New(calcpb.Format, calcpb.Commands, calcpb.Results, tagged.Unlimited),
			tagged.New(calcpb.Format, calcpb.Results, calcpb.Commands, tagged.Unlimited),
			calcpb.Commands, protoText,
		}, nil
	default:
		return wire{}, fmt.Errorf("no codec %q: json, mus, protobuf", codec)
	}
}

// command makes the command of that name from its JSON.
func (w wire) command(name string, value json.RawMessage) (calc.Cmd, error) {
	for _, sample := range w.commands {
		kind := reflect.TypeOf(sample)
		isMessage := kind.Kind() == reflect.Pointer
		if isMessage {
			kind = kind.Elem()
		}
		if kind.Name() != name {
			continue
		}
		target := reflect.New(kind)
		if err := w.text.Unmarshal(value, target.Interface()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if isMessage {
			return target.Interface().(calc.Cmd), nil
		}
		return target.Elem().Interface().(calc.Cmd), nil
	}
	return nil, fmt.Errorf("no command %q", name)
}

// shown is a result as it is printed.
func (w wire) shown(result core.Result) json.RawMessage {
	text, err := w.text.Marshal(result)
	if err != nil {
		panic(err) // it came from a codec
	}
	return text
}
