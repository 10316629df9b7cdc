// Package calcpb has the commands and results of calc as Protobuf messages. The methods
// that make them commands and results have to be in the package of the messages.
package calcpb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cmd-stream/cmd-stream-go/core"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"interop/calc"
	"interop/tagged"
)

// Commands and Results are the registry; the place of a type is its tag.
var (
	Commands = []calc.Cmd{
		&NumberCmd{}, &TextCmd{}, &RangeCmd{}, &FailCmd{}, &MirrorCmd{},
	}
	Results = []core.Result{
		&NumberResult{}, &TextResult{}, &RangeResult{}, &MirrorResult{},
	}
)

// Format is Protobuf's own encoding.
var Format = tagged.Format{
	Marshal: func(v any) ([]byte, error) {
		message, is := v.(proto.Message)
		if !is {
			return nil, fmt.Errorf("%T is not a message", v)
		}
		return proto.Marshal(message)
	},
	Unmarshal: func(body []byte, v any) error {
		message, is := v.(proto.Message)
		if !is {
			return fmt.Errorf("%T is not a message", v)
		}
		return proto.Unmarshal(body, message)
	},
}

func (c *NumberCmd) Exec(_ context.Context, seq core.Seq, _ time.Time, _ calc.Receiver,
	proxy core.Proxy,
) error {
	_, err := proxy.Send(seq, &NumberResult{X: c.X})
	return err
}

func (c *TextCmd) Exec(_ context.Context, seq core.Seq, _ time.Time, _ calc.Receiver,
	proxy core.Proxy,
) error {
	_, err := proxy.Send(seq, &TextResult{Y: c.Y})
	return err
}

func (c *RangeCmd) Exec(_ context.Context, seq core.Seq, _ time.Time, _ calc.Receiver,
	proxy core.Proxy,
) error {
	for i := range c.Count {
		result := &RangeResult{Value: c.From + i, Last: i == c.Count-1}
		if _, err := proxy.Send(seq, result); err != nil {
			return err
		}
	}
	return nil
}

func (*FailCmd) Exec(context.Context, core.Seq, time.Time, calc.Receiver, core.Proxy) error {
	return errors.New("intentional")
}

func (c *MirrorCmd) Exec(_ context.Context, seq core.Seq, _ time.Time, _ calc.Receiver,
	proxy core.Proxy,
) error {
	seen, err := protojson.Marshal(c.Value)
	if err != nil {
		return err
	}
	_, err = proxy.Send(seq, &MirrorResult{Value: c.Value, Seen: string(seen)})
	return err
}

func (*NumberResult) LastOne() bool  { return true }
func (*TextResult) LastOne() bool    { return true }
func (r *RangeResult) LastOne() bool { return r.Last }
func (*MirrorResult) LastOne() bool  { return true }
