// Places orders with a coordinator, and asks for each under the same key until it has
// an answer:
//
//	go run ./orders -connect 127.0.0.1:7000 o-1 o-2
//
// With -ca over TLS, with -cert and -key showing who it is.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	cmdstream "github.com/cmd-stream/cmd-stream-go"
	cln "github.com/cmd-stream/cmd-stream-go/client"
	"github.com/cmd-stream/cmd-stream-go/core"
	ccln "github.com/cmd-stream/cmd-stream-go/core/cln"
	dcln "github.com/cmd-stream/cmd-stream-go/delegate/cln"

	"interop/tagged"
)

const (
	serverInfo   = "orders-v1" // what the coordinator is served with: --info orders-v1
	bodySizeMax  = 16 << 20    // bytes; the Python side has the same limit
	greetingMax  = 10 * time.Second
	pauseAtFirst = 50 * time.Millisecond
	pauseAtMost  = 5 * time.Second
)

// PlaceOrder is the command, as the coordinator declares it.
type PlaceOrder struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

// Exec is what makes it a command in Go. It runs on the server, and that is not here.
func (PlaceOrder) Exec(context.Context, core.Seq, time.Time, none, core.Proxy) error {
	return errors.New("an order is executed by the coordinator")
}

// Receipt is the result of an order that went through.
type Receipt struct {
	Order string `json:"order"`
	Cents int    `json:"cents"`
}

// OrderFailed is the result of any other.
type OrderFailed struct {
	Workflow string `json:"workflow"`
	Status   string `json:"status"` // compensated, cancelled, stuck, refused, completed
	Reason   string `json:"reason"`
}

// LastOne is not on the wire: both sides have to agree that one result is all.
func (Receipt) LastOne() bool     { return true }
func (OrderFailed) LastOne() bool { return true }

type none struct{}

// The types in the coordinator's order. Append to them, never reorder.
var codec = tagged.New(tagged.JSON,
	[]core.Cmd[none]{PlaceOrder{}},
	[]core.Result{Receipt{}, OrderFailed{}},
	bodySizeMax)

// Coordinator is the way to one. It connects when it has to.
type Coordinator struct {
	Address string
	TLS     *tls.Config // nil: none

	mu     sync.Mutex
	client *ccln.Client[none]
}

// Place returns the answer to an order. If the connection is lost before there is one,
// it asks again: the coordinator knows the order by its ID, and does nothing twice.
func (c *Coordinator) Place(ctx context.Context, order PlaceOrder) (core.Result, error) {
	for pause := pauseAtFirst; ; pause = min(2*pause, pauseAtMost) {
		result, err := c.ask(ctx, order)
		if err == nil || ctx.Err() != nil || errors.Is(err, dcln.ErrServerInfoMismatch) {
			return result, err
		}
		wait := rand.N(pause) // so that not all clients come back at the same moment
		log.Printf("%s: %v; asking again in %v", order.ID, err, wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *Coordinator) ask(ctx context.Context, order PlaceOrder) (core.Result, error) {
	client, err := c.connected(ctx)
	if err != nil {
		return nil, err
	}
	answers := make(chan core.AsyncResult, 1)
	seq, _, err := client.Send(order, answers)
	if err != nil {
		_ = client.Close() // after a failed write nothing else would get through
		return nil, err
	}
	select {
	case answer := <-answers:
		return answer.Result, answer.Error
	case <-client.Done(): // an order sent at the very end is told of by nothing else
		return nil, client.Error()
	case <-ctx.Done():
		client.Forget(seq)
		return nil, ctx.Err()
	}
}

// connected dials if there is no connection. cmd-stream's own reconnecting client is not
// used: it dials without a pause, and loses what is sent in between.
func (c *Coordinator) connected(ctx context.Context) (*ccln.Client[none], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		select {
		case <-c.client.Done():
		default:
			return c.client, nil
		}
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	client, err := cmdstream.NewClient(codec, conn,
		cln.WithServerInfo([]byte(serverInfo)),
		cln.WithDelegate(dcln.WithServerInfoReceiveDuration(greetingMax)))
	if err != nil {
		_ = conn.Close() // NewClient leaves it open
		return nil, err
	}
	c.client = client
	return client, nil
}

func (c *Coordinator) dial(ctx context.Context) (net.Conn, error) {
	if c.TLS == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", c.Address)
	}
	dialer := tls.Dialer{Config: c.TLS}
	return dialer.DialContext(ctx, "tcp", c.Address)
}

// tlsConfig trusts the coordinators of one authority, and shows a certificate if given.
func tlsConfig(authority, certificate, key string) (*tls.Config, error) {
	if authority == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", authority)
	}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func main() {
	address := flag.String("connect", "127.0.0.1:7000", "host:port of the coordinator")
	cents := flag.Int("cents", 1999, "what each order costs")
	authority := flag.String("ca", "", "PEM file of who signed the coordinator's certificate")
	certificate := flag.String("cert", "", "PEM file of our certificate")
	key := flag.String("key", "", "PEM file of its key")
	flag.Parse()
	config, err := tlsConfig(*authority, *certificate, *key)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	coordinator := &Coordinator{Address: *address, TLS: config}
	var orders sync.WaitGroup
	for _, id := range flag.Args() {
		orders.Add(1)
		go func() {
			defer orders.Done()
			result, err := coordinator.Place(ctx, PlaceOrder{ID: id, Cents: *cents})
			switch result := result.(type) {
			case Receipt:
				fmt.Printf("%s paid: %d cents\n", result.Order, result.Cents)
			case OrderFailed:
				fmt.Printf("%s %s: %s\n", id, result.Status, result.Reason)
			default:
				fmt.Printf("%s unknown: %v\n", id, err)
			}
		}()
	}
	orders.Wait()
}
