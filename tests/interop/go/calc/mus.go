package calc

import (
	"fmt"

	"github.com/cmd-stream/cmd-stream-go/core"
	tspt "github.com/cmd-stream/cmd-stream-go/transport"
	com "github.com/mus-format/common-go"
	"github.com/mus-format/mus-stream-go"
	"github.com/mus-format/mus-stream-go/ord"
	"github.com/mus-format/mus-stream-go/raw"
	"github.com/mus-format/mus-stream-go/typed"
	"github.com/mus-format/mus-stream-go/varint"
)

// What mus-gen would write, by hand: a struct is its fields in order. DTMs count from 1.

var pointMUS = record[Point]{
	fields: func(p *Point) []field {
		return []field{of(varint.Int, &p.X), of(varint.Int, &p.Y)}
	},
}

var widthsMUS = record[Widths]{
	fields: func(w *Widths) []field {
		return []field{
			of(raw.Int8, &w.Tiny),
			of(raw.Uint8, &w.Octet),
			of(varint.Int16, &w.Short),
			of(varint.Uint16, &w.Port),
			of(raw.Int32, &w.Word),
			of(varint.Uint32, &w.Index),
			of(raw.Int64, &w.Long),
			of(raw.Uint64, &w.Mask),
			of(varint.PositiveInt64, &w.Size),
			of(raw.Float32, &w.Half),
			of(varint.Float64, &w.Ratio),
			of(raw.TimeUnixMilliUTC, &w.Millis),
			of(raw.TimeUnixNanoUTC, &w.Nanos),
		}
	},
}

var everythingMUS = record[Everything]{
	fields: func(e *Everything) []field {
		return []field{
			of(varint.Int, &e.Number),
			of(varint.Uint64, &e.Natural),
			of(raw.Float64, &e.Fraction),
			of(ord.Bool, &e.Flag),
			of(ord.String, &e.Text),
			of(ord.ByteSlice, &e.Data),
			of(raw.TimeUnixUTC, &e.At),
			of(varint.Int64, (*int64)(&e.Wait)),
			of(ord.NewSliceSer[int](varint.Int), &e.Numbers),
			of(ord.NewMapSer[string, int](ord.String, varint.Int), &e.Counts),
			of(ord.NewPtrSer[string](ord.String), &e.Maybe),
			of(pointMUS, &e.Point),
			of(ord.NewSliceSer[Point](pointMUS), &e.Path),
			of(widthsMUS, &e.Widths),
		}
	},
}

var (
	commandsMUS = union[Cmd]{
		arm[Cmd](1, func(c *AddCmd) []field {
			return []field{of(varint.Int, &c.A), of(varint.Int, &c.B)}
		}),
		arm[Cmd](2, func(c *EchoCmd) []field {
			return []field{of(ord.String, (*string)(c))}
		}),
		arm[Cmd](3, func(c *StreamCmd) []field {
			return []field{of(varint.Int, &c.From), of(varint.Int, &c.Count)}
		}),
		arm[Cmd](4, func(*FailCmd) []field { return nil }),
		arm[Cmd](5, func(c *SleepCmd) []field {
			return []field{of(varint.Int, &c.Ms), of(ord.String, &c.Tag)}
		}),
		arm[Cmd](6, func(c *MirrorCmd) []field {
			return []field{of(everythingMUS, &c.Value)}
		}),
		arm[Cmd](7, func(*PanicCmd) []field { return nil }),
		arm[Cmd](8, func(*CancelCmd) []field { return nil }),
	}
	resultsMUS = union[core.Result]{
		arm[core.Result](1, func(r *CalcResult) []field {
			return []field{of(varint.Int, (*int)(r))}
		}),
		arm[core.Result](2, func(r *EchoResult) []field {
			return []field{of(ord.String, (*string)(r))}
		}),
		arm[core.Result](3, func(r *StreamResult) []field {
			return []field{of(varint.Int, &r.Value), of(ord.Bool, &r.Last)}
		}),
		arm[core.Result](4, func(r *MirrorResult) []field {
			return []field{of(everythingMUS, &r.Value), of(ord.String, &r.Seen)}
		}),
	}
)

// ClientMUS and ServerMUS are the MUS codecs of both sides.
var (
	ClientMUS = musCodec[Cmd, core.Result]{commandsMUS, resultsMUS}
	ServerMUS = musCodec[core.Result, Cmd]{resultsMUS, commandsMUS}
)

type musCodec[T, V any] struct {
	writes union[T]
	reads  union[V]
}

func (c musCodec[T, V]) Encode(value T, w tspt.Writer) (int, error) {
	for _, a := range c.writes {
		if marshal := a.marshal(value); marshal != nil {
			return marshal(w)
		}
	}
	return 0, fmt.Errorf("%T is not registered", value)
}

func (c musCodec[T, V]) Decode(r tspt.Reader) (value V, n int, err error) {
	dtm, n, err := typed.DTMSer.Unmarshal(r)
	if err != nil {
		return value, n, err
	}
	if dtm < 1 || int(dtm) > len(c.reads) {
		return value, n, com.NewUnexpectedDTMError(dtm)
	}
	value, n1, err := c.reads[dtm-1].unmarshal(r)
	return value, n + n1, err
}

// A union is one of several types, told apart by its DTM.
type union[I any] []variant[I]

type variant[I any] struct {
	marshal   func(value I) func(w mus.Writer) (int, error) // nil for another type
	unmarshal func(r mus.Reader) (I, int, error)
}

func arm[I, T any](dtm com.DTM, fields func(*T) []field) variant[I] {
	ser := typed.NewSer[T](dtm, record[T]{fields})
	return variant[I]{
		marshal: func(value I) func(mus.Writer) (int, error) {
			own, is := any(value).(T)
			if !is {
				return nil
			}
			return func(w mus.Writer) (int, error) { return ser.Marshal(own, w) }
		},
		unmarshal: func(r mus.Reader) (I, int, error) {
			own, n, err := ser.UnmarshalData(r)
			return any(own).(I), n, err
		},
	}
}

// A field is written from, and read into, one place of a struct.
type field struct {
	marshal   func(w mus.Writer) (int, error)
	unmarshal func(r mus.Reader) (int, error)
}

func of[T any](ser mus.Serializer[T], at *T) field {
	return field{
		marshal: func(w mus.Writer) (int, error) { return ser.Marshal(*at, w) },
		unmarshal: func(r mus.Reader) (n int, err error) {
			*at, n, err = ser.Unmarshal(r)
			return n, err
		},
	}
}

// A record is a struct: its fields in order, and nothing else.
type record[T any] struct {
	fields func(*T) []field
}

func (s record[T]) Marshal(value T, w mus.Writer) (n int, err error) {
	for _, f := range s.fields(&value) {
		n1, err := f.marshal(w)
		n += n1
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s record[T]) Unmarshal(r mus.Reader) (value T, n int, err error) {
	for _, f := range s.fields(&value) {
		n1, err := f.unmarshal(r)
		n += n1
		if err != nil {
			return value, n, err
		}
	}
	return value, n, nil
}

func (s record[T]) Size(value T) int {
	n, _ := s.Marshal(value, nowhere{})
	return n
}

func (s record[T]) Skip(r mus.Reader) (int, error) {
	_, n, err := s.Unmarshal(r)
	return n, err
}

type nowhere struct{}

func (nowhere) Write(data []byte) (int, error)       { return len(data), nil }
func (nowhere) WriteByte(byte) error                 { return nil }
func (nowhere) WriteString(text string) (int, error) { return len(text), nil }
