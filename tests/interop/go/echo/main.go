// Echo is cmd-stream's own client and server for `make bench-cmdstream`:
//
//	echo serve
//	echo call -connect 127.0.0.1:7000 -connections 1 -in-flight 100 -seconds 3
//
// serve prints its port, call what it measured, as bench/load.py does.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"sort"
	"sync"
	"time"

	cmdstream "github.com/cmd-stream/cmd-stream-go"
	"github.com/cmd-stream/cmd-stream-go/core"
	ccln "github.com/cmd-stream/cmd-stream-go/core/cln"
	csrv "github.com/cmd-stream/cmd-stream-go/core/srv"
	srv "github.com/cmd-stream/cmd-stream-go/server"

	"interop/tagged"
)

const (
	bodySize       = 64 // bytes, as bench/echo/__init__.py has it
	connectionsMax = 64
)

type none struct{}

// EchoCmd is answered with its text.
type EchoCmd struct {
	Text string `json:"text"`
}

// EchoResult is the same back.
type EchoResult struct {
	Text string `json:"text"`
}

// Exec answers.
func (c EchoCmd) Exec(_ context.Context, seq core.Seq, _ time.Time, _ none,
	proxy core.Proxy,
) error {
	_, err := proxy.Send(seq, EchoResult(c))
	return err
}

// LastOne says that it is the only one.
func (EchoResult) LastOne() bool { return true }

var (
	commands = []core.Cmd[none]{EchoCmd{}}
	results  = []core.Result{EchoResult{}}
	ofClient = tagged.New(tagged.JSON, commands, results, tagged.Unlimited)
	ofServer = tagged.New(tagged.JSON, results, commands, tagged.Unlimited)
)

// Measured is bench.load.Measured.
type Measured struct {
	Rate  float64 `json:"rate"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Count int     `json:"count"`
	Total int     `json:"total"`
}

func main() {
	if len(os.Args) < 2 {
		log.Fatal("serve or call")
	}
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve()
	case "call":
		err = call(os.Args[2:])
	default:
		err = fmt.Errorf("no such role: %s", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve() error {
	server, err := cmdstream.NewServer(none{}, ofServer,
		srv.WithCore(csrv.WithWorkersCount(connectionsMax)))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return server.Serve(listener.(*net.TCPListener))
}

func call(arguments []string) error {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	address := flags.String("connect", "", "host:port")
	connections := flags.Int("connections", 1, "used in turn")
	inFlight := flags.Int("in-flight", 100, "callers, with one command each")
	seconds := flags.Float64("seconds", 3, "a tenth more to warm up")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	clients := make([]*ccln.Client[none], *connections)
	for i := range clients {
		conn, err := net.Dial("tcp", *address)
		if err != nil {
			return err
		}
		if clients[i], err = cmdstream.NewClient(ofClient, conn); err != nil {
			return err
		}
	}
	window := time.Duration(*seconds * float64(time.Second))
	begin := time.Now().Add(window / 10)
	seen := make([][]time.Duration, *inFlight)
	totals := make([]int, *inFlight)
	failures := make(chan error, *inFlight)
	var callers sync.WaitGroup
	for i := range *inFlight {
		callers.Add(1)
		go func() {
			defer callers.Done()
			var err error
			seen[i], totals[i], err = loop(clients, i, begin, begin.Add(window))
			if err != nil {
				failures <- err
			}
		}()
	}
	callers.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return json.NewEncoder(os.Stdout).Encode(summedUp(seen, totals, window))
	}
}

// loop calls, one after the other, until the end; what ended within the window counts.
func loop(clients []*ccln.Client[none], caller int, begin, end time.Time) (
	seen []time.Duration, total int, err error,
) {
	for {
		start := time.Now()
		if !start.Before(end) {
			return seen, total, nil
		}
		text := fmt.Sprintf("%0*d", bodySize-len(`{"text":""}`), total)
		answers := make(chan core.AsyncResult, 1)
		client := clients[(caller+total)%len(clients)]
		if _, _, err := client.Send(EchoCmd{text}, answers); err != nil {
			return seen, total, err
		}
		answer := <-answers
		if answer.Error != nil {
			return seen, total, answer.Error
		}
		if result := answer.Result.(EchoResult); result.Text != text {
			return seen, total, fmt.Errorf("%q came back as %q", text, result.Text)
		}
		now := time.Now()
		total++
		if !now.Before(begin) && !now.After(end) {
			seen = append(seen, now.Sub(start))
		}
	}
}

func summedUp(seen [][]time.Duration, totals []int, window time.Duration) Measured {
	var all []time.Duration
	sum := 0
	for caller, some := range seen {
		all = append(all, some...)
		sum += totals[caller]
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	at := func(percent int) float64 {
		return float64(all[len(all)*percent/100]) / float64(time.Millisecond)
	}
	return Measured{float64(len(all)) / window.Seconds(), at(50), at(99), len(all), sum}
}
