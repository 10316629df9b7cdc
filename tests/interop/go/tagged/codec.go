// Package tagged has the layout that cmd-stream's JSON and Protobuf codecs share: the
// place of the type in a list, the length of the body, the body.
package tagged

import (
	"encoding/json"
	"fmt"
	"reflect"

	tspt "github.com/cmd-stream/cmd-stream-go/transport"
	com "github.com/mus-format/common-go"
	"github.com/mus-format/mus-stream-go"
	bslopts "github.com/mus-format/mus-stream-go/options/byte_slice"
	"github.com/mus-format/mus-stream-go/ord"
	"github.com/mus-format/mus-stream-go/varint"
)

// Format is how one value becomes a body, and a body the value that v points to.
type Format struct {
	Marshal   func(v any) ([]byte, error)
	Unmarshal func(body []byte, v any) error
}

// JSON is what encoding/json makes of it.
var JSON = Format{json.Marshal, json.Unmarshal}

// Unlimited takes bodies of any length, as cmd-stream's own codecs do by default. A peer
// can end the process with it: the length is allocated before any of it has come.
const Unlimited = -1

// Codec writes values of one list of types and reads those of another. A client writes
// commands and reads results, a server the other way round.
type Codec[T, V any] struct {
	format  Format
	tags    map[reflect.Type]int
	readers []reflect.Type
	body    mus.Serializer[[]byte]
}

// New numbers the types of both lists, whose elements are there for their types only.
// The order is the whole schema: both sides have to list the same types in it.
func New[T, V any](format Format, writes []T, reads []V, sizeMax int) Codec[T, V] {
	c := Codec[T, V]{format: format, tags: make(map[reflect.Type]int)}
	for tag, value := range writes {
		c.tags[reflect.TypeOf(value)] = tag
	}
	for _, value := range reads {
		c.readers = append(c.readers, reflect.TypeOf(value))
	}
	c.body = ord.ByteSlice
	if sizeMax != Unlimited {
		c.body = ord.NewValidByteSliceSer(bslopts.WithLenValidator(
			com.ValidatorFn[int](func(size int) error {
				if size > sizeMax {
					return fmt.Errorf("%d bytes, the limit is %d", size, sizeMax)
				}
				return nil
			})))
	}
	return c
}

// Encode writes the value; nothing, if it is of no type of the list or has no body.
func (c Codec[T, V]) Encode(value T, w tspt.Writer) (n int, err error) {
	tag, known := c.tags[reflect.TypeOf(value)]
	if !known {
		return 0, fmt.Errorf("%T is not registered", value)
	}
	body, err := c.format.Marshal(value)
	if err != nil {
		return 0, err
	}
	if n, err = varint.PositiveInt.Marshal(tag, w); err != nil {
		return n, err
	}
	n1, err := c.body.Marshal(body, w)
	return n + n1, err
}

// Decode reads one value.
func (c Codec[T, V]) Decode(r tspt.Reader) (value V, n int, err error) {
	tag, n, err := varint.PositiveInt.Unmarshal(r)
	if err != nil {
		return value, n, err
	}
	if tag < 0 || tag >= len(c.readers) {
		return value, n, fmt.Errorf("unknown tag %d: %d are registered", tag, len(c.readers))
	}
	body, n1, err := c.body.Unmarshal(r)
	n += n1
	if err != nil {
		return value, n, err
	}
	kind := c.readers[tag]
	if kind.Kind() == reflect.Pointer { // as Protobuf messages are
		target := reflect.New(kind.Elem())
		err = c.format.Unmarshal(body, target.Interface())
		return target.Interface().(V), n, err
	}
	target := reflect.New(kind)
	err = c.format.Unmarshal(body, target.Interface())
	return target.Elem().Interface().(V), n, err
}
