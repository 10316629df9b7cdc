// Payments charges and refunds for a coordinator, each once however often it is asked:
//
//	go run ./payments -listen 127.0.0.1:9000
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"strings"
	"sync"
	"time"

	cmdstream "github.com/cmd-stream/cmd-stream-go"
	"github.com/cmd-stream/cmd-stream-go/core"
	csrv "github.com/cmd-stream/cmd-stream-go/core/srv"
	srv "github.com/cmd-stream/cmd-stream-go/server"

	"interop/tagged"
)

const (
	serverInfo  = "payments-v1" // what the gateway expects
	bodySizeMax = 16 << 20      // bytes; the Python side has the same limit
	clientsMax  = 64            // connections at a time; a gateway has one
)

// Call is what the gateway fills in. Both of Go's JSON and MUS lay an embedded struct out
// as if its fields stood here.
type Call struct {
	Key         string `json:"idempotency_key"`   // the same whenever it is asked again
	Epoch       int64  `json:"coordinator_epoch"` // higher after each restart
	Traceparent string `json:"traceparent"`
}

// Charge takes money.
type Charge struct {
	Order string `json:"order"`
	Cents int    `json:"cents"`
	Call
}

// Refund gives it back.
type Refund struct {
	Payment string `json:"payment"`
	Call
}

// Paid is the result of a charge that went through.
type Paid struct {
	Payment string `json:"payment"`
	Cents   int    `json:"cents"`
}

// Refunded is the result of a refund.
type Refunded struct{}

// Declined is the "no" of the business: the gateway takes it for a refusal.
type Declined struct {
	Reason string `json:"reason"`
}

// LastOne is not on the wire: a step of a workflow has one result.
func (Paid) LastOne() bool     { return true }
func (Refunded) LastOne() bool { return true }
func (Declined) LastOne() bool { return true }

// Bank is what commands are executed on. A real one is a table with a unique key, written
// in the transaction that moves the money.
type Bank struct {
	mu   sync.Mutex
	done map[string]core.Result // by idempotency key
}

// once does it, or returns what was answered when it was.
func (b *Bank) once(call Call, do func() core.Result) core.Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	result, known := b.done[call.Key]
	if !known {
		result = do()
		b.done[call.Key] = result
	}
	return result
}

// Exec returns an error only if its answer could not be sent: any other would close the
// connection, with all calls on it. A failure without a result leaves the gateway in
// doubt, so it asks again; a panic has to be recovered here, or it ends the process.
func (c Charge) Exec(_ context.Context, seq core.Seq, _ time.Time, bank *Bank,
	proxy core.Proxy,
) error {
	_, err := proxy.Send(seq, bank.once(c.Call, func() core.Result {
		if strings.HasPrefix(c.Order, "poor-") {
			return Declined{Reason: "insufficient funds"}
		}
		fmt.Printf("charge %s %s\n", c.Order, c.Key)
		return Paid{Payment: "p-" + c.Order, Cents: c.Cents}
	}))
	return err
}

// Exec gives the money back, once.
func (c Refund) Exec(_ context.Context, seq core.Seq, _ time.Time, bank *Bank,
	proxy core.Proxy,
) error {
	_, err := proxy.Send(seq, bank.once(c.Call, func() core.Result {
		fmt.Printf("refund %s %s\n", strings.TrimPrefix(c.Payment, "p-"), c.Key)
		return Refunded{}
	}))
	return err
}

// The types in the gateway's order. Append to them, never reorder.
var codec = tagged.New(tagged.JSON,
	[]core.Result{Paid{}, Refunded{}, Declined{}},
	[]core.Cmd[*Bank]{Charge{}, Refund{}},
	bodySizeMax)

func main() {
	address := flag.String("listen", "127.0.0.1:9000", "host:port")
	flag.Parse()
	bank := &Bank{done: make(map[string]core.Result)}
	server, err := cmdstream.NewServer(bank, codec,
		srv.WithServerInfo([]byte(serverInfo)),
		srv.WithCore(csrv.WithWorkersCount(clientsMax)))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	log.Println("listening on", listener.Addr())
	log.Fatal(server.Serve(listener.(*net.TCPListener)))
}
