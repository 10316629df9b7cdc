// Peer is the Go end of the tests: a cmd-stream server, or a client that sends what it
// reads from stdin. Both print JSON lines, and end when stdin does.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

func main() {
	modes := map[string]func(arguments []string) error{"serve": serve, "call": call}
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: peer serve|call -codec json|mus|protobuf …")
		os.Exit(2)
	}
	if err := modes[os.Args[1]](os.Args[2:]); err != nil {
		say(line{"fatal": err.Error()})
		os.Exit(1)
	}
}

type line map[string]any

var stdout sync.Mutex

// say prints one line; any goroutine may.
func say(what line) {
	text, err := json.Marshal(what)
	if err != nil {
		panic(err) // only ours is printed
	}
	stdout.Lock()
	defer stdout.Unlock()
	_, _ = os.Stdout.Write(append(text, '\n'))
}
