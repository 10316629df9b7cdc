package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"flag"
	"net"
	"os"
	"strings"
	"time"

	cmdstream "github.com/cmd-stream/cmd-stream-go"
	cln "github.com/cmd-stream/cmd-stream-go/client"
	"github.com/cmd-stream/cmd-stream-go/core"
	ccln "github.com/cmd-stream/cmd-stream-go/core/cln"
	dcln "github.com/cmd-stream/cmd-stream-go/delegate/cln"

	"interop/calc"
)

const lineSizeMax = 64 << 20

// A request is one line of stdin; it is answered by one of stdout, with the same id.
type request struct {
	ID        int             `json:"id"`
	Command   string          `json:"command"`
	Value     json.RawMessage `json:"value"`
	TimeoutMs int             `json:"timeout_ms"` // 0: waits for ever
}

type caller struct {
	wire   wire
	client *ccln.Client[calc.Receiver]
}

// call sends what it reads, in that order, without waiting for results.
func call(arguments []string) error {
	var (
		flags     = flag.NewFlagSet("call", flag.ExitOnError)
		codec     = flags.String("codec", "json", "json, mus or protobuf")
		address   = flags.String("connect", "", "host:port")
		info      = flags.String("info", "default", "the ServerInfo to expect")
		infoSize  = flags.Int("info-size", 0, "a ServerInfo of so many bytes i instead")
		reconnect = flags.Bool("reconnect", false, "connect again after a loss")
		keepalive = flags.Duration("keepalive", 0, "silence before a ping; 0: no pings")
		interval  = flags.Duration("interval", time.Hour, "from one ping to the next")
		security  tlsFlags
	)
	security.register(flags)
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *infoSize > 0 {
		*info = strings.Repeat("i", *infoSize)
	}
	wire, err := wireOf(*codec)
	if err != nil {
		return err
	}
	config, err := security.config()
	if err != nil {
		return err
	}
	options := []cln.SetOption{
		cln.WithServerInfo([]byte(*info)),
		cln.WithCore(ccln.WithUnexpectedResultCallback(
			func(seq core.Seq, result core.Result) {
				say(line{"unexpected": seq, "result": wire.shown(result)})
			})),
	}
	if *keepalive > 0 {
		options = append(options, cln.WithKeepalive(
			dcln.WithKeepaliveTime(*keepalive), dcln.WithKeepaliveIntvl(*interval)))
	}
	client, err := connect(wire, dialer(*address, config), *reconnect, options)
	if err != nil {
		return err
	}
	say(line{"connected": *address})
	go func() {
		<-client.Done()
		say(line{"done": client.Error().Error()})
	}()
	return caller{wire, client}.run()
}

func dialer(address string, config *tls.Config) cln.ConnFactoryFn {
	return func() (net.Conn, error) {
		if config == nil {
			return net.Dial("tcp", address)
		}
		return tls.Dial("tcp", address, config)
	}
}

func connect(wire wire, dial cln.ConnFactoryFn, reconnect bool, options []cln.SetOption) (
	*ccln.Client[calc.Receiver], error,
) {
	if reconnect {
		return cmdstream.NewReconnectClient(wire.client, dial, options...)
	}
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	return cmdstream.NewClient(wire.client, conn, options...)
}

func (c caller) run() error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, lineSizeMax)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		command, err := c.wire.command(asked.Command, asked.Value)
		if err != nil {
			return err
		}
		results := make(chan core.AsyncResult, 16)
		seq, _, err := c.client.Send(command, results)
		if err != nil {
			say(line{"id": asked.ID, "error": err.Error()})
			continue
		}
		go c.await(asked, seq, results)
	}
	return lines.Err()
}

// await collects the results of one command, up to its last.
func (c caller) await(asked request, seq core.Seq, results <-chan core.AsyncResult) {
	var tooLate <-chan time.Time
	if asked.TimeoutMs > 0 {
		tooLate = time.After(time.Duration(asked.TimeoutMs) * time.Millisecond)
	}
	got := []json.RawMessage{}
	for {
		select {
		case result := <-results:
			if result.Error != nil {
				say(line{"id": asked.ID, "results": got, "error": result.Error.Error()})
				return
			}
			got = append(got, c.wire.shown(result.Result))
			if result.Result.LastOne() {
				say(line{"id": asked.ID, "results": got})
				return
			}
		case <-tooLate:
			c.client.Forget(seq)
			say(line{"id": asked.ID, "results": got, "error": "timeout"})
			return
		}
	}
}
