// Package calc has the commands and results of the recorded exchanges
// (tests/cmdstream/vectors.json), and Everything: a field of each type.
package calc

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/cmd-stream/cmd-stream-go/core"
)

// Receiver is what commands are executed on; these need nothing.
type Receiver struct{}

// Cmd is any of them.
type Cmd = core.Cmd[Receiver]

// Commands and Results are the registry: for JSON the place of a type is its tag, for
// MUS the place counted from 1.
var (
	Commands = []Cmd{
		AddCmd{}, EchoCmd(""), StreamCmd{}, FailCmd{}, SleepCmd{}, MirrorCmd{},
		PanicCmd{}, CancelCmd{},
	}
	Results = []core.Result{
		CalcResult(0), EchoResult(""), StreamResult{}, MirrorResult{},
	}
)

// Everything has a field of each type that both languages have a word for.
type Everything struct {
	Number   int            `json:"number"`
	Natural  uint64         `json:"natural"`
	Fraction float64        `json:"fraction"`
	Flag     bool           `json:"flag"`
	Text     string         `json:"text"`
	Data     []byte         `json:"data"`
	At       time.Time      `json:"at"`
	Wait     time.Duration  `json:"wait"`
	Numbers  []int          `json:"numbers"`
	Counts   map[string]int `json:"counts"`
	Maybe    *string        `json:"maybe"`
	Point    Point          `json:"point"`
	Path     []Point        `json:"path"`
	Widths   Widths         `json:"widths"`
}

// Widths has a field of each other size, and of each other way to write a number or a
// time: those of the recorded primitives.
type Widths struct {
	Tiny   int8      `json:"tiny"`
	Octet  uint8     `json:"octet"`
	Short  int16     `json:"short"`
	Port   uint16    `json:"port"`
	Word   int32     `json:"word"`
	Index  uint32    `json:"index"`
	Long   int64     `json:"long"`
	Mask   uint64    `json:"mask"`
	Size   int64     `json:"size"`
	Half   float32   `json:"half"`
	Ratio  float64   `json:"ratio"`
	Millis time.Time `json:"millis"`
	Nanos  time.Time `json:"nanos"`
}

// Point is a value inside a value.
type Point struct {
	X int `json:"x"`
	Y int `json:"y"`
}

// AddCmd is answered with the sum. Its fields have no tags, so they keep their capitals.
type AddCmd struct{ A, B int }

func (c AddCmd) Exec(_ context.Context, seq core.Seq, _ time.Time, _ Receiver,
	proxy core.Proxy,
) error {
	_, err := proxy.Send(seq, CalcResult(c.A+c.B))
	return err
}

// EchoCmd is answered with itself.
type EchoCmd string

func (c EchoCmd) Exec(_ context.Context, seq core.Seq, _ time.Time, _ Receiver,
	proxy core.Proxy,
) error {
	_, err := proxy.Send(seq, EchoResult(c))
	return err
}

// StreamCmd is answered with Count results, the last of which says so.
type StreamCmd struct {
	From  int `json:"from"`
	Count int `json:"count"`
}

func (c StreamCmd) Exec(_ context.Context, seq core.Seq, _ time.Time, _ Receiver,
	proxy core.Proxy,
) error {
	for i := range c.Count {
		result := StreamResult{Value: c.From + i, Last: i == c.Count-1}
		if _, err := proxy.Send(seq, result); err != nil {
			return err
		}
	}
	return nil
}

// FailCmd fails, which closes its connection.
type FailCmd struct{}

func (FailCmd) Exec(context.Context, core.Seq, time.Time, Receiver, core.Proxy) error {
	return errors.New("intentional")
}

// SleepCmd is answered with its tag after a while.
type SleepCmd struct {
	Ms  int    `json:"ms"`
	Tag string `json:"tag"`
}

func (c SleepCmd) Exec(ctx context.Context, seq core.Seq, _ time.Time, _ Receiver,
	proxy core.Proxy,
) error {
	select {
	case <-time.After(time.Duration(c.Ms) * time.Millisecond):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_, err := proxy.Send(seq, EchoResult(c.Tag))
	return err
}

// MirrorCmd is answered with its value, and with what Go's own JSON says of it: a codec
// that mistakes one field for another both ways would look like a mirror, too.
type MirrorCmd struct {
	Value Everything `json:"value"`
}

func (c MirrorCmd) Exec(_ context.Context, seq core.Seq, _ time.Time, _ Receiver,
	proxy core.Proxy,
) error {
	seen, err := json.Marshal(c.Value)
	if err != nil {
		return err
	}
	_, err = proxy.Send(seq, MirrorResult{Value: c.Value, Seen: string(seen)})
	return err
}

// PanicCmd panics, which ends the process of a Go server.
type PanicCmd struct{}

func (PanicCmd) Exec(context.Context, core.Seq, time.Time, Receiver, core.Proxy) error {
	panic("intentional")
}

// CancelCmd fails with the error of a call that was cancelled, which stops a Go server.
type CancelCmd struct{}

func (CancelCmd) Exec(context.Context, core.Seq, time.Time, Receiver, core.Proxy) error {
	return context.Canceled
}

// CalcResult is a sum.
type CalcResult int

func (CalcResult) LastOne() bool { return true }

// EchoResult is what was said.
type EchoResult string

func (EchoResult) LastOne() bool { return true }

// StreamResult is one of several.
type StreamResult struct {
	Value int  `json:"value"`
	Last  bool `json:"last"`
}

func (r StreamResult) LastOne() bool { return r.Last }

// MirrorResult is a value as it arrived.
type MirrorResult struct {
	Value Everything `json:"value"`
	Seen  string     `json:"seen"`
}

func (MirrorResult) LastOne() bool { return true }
