package main

import (
	"crypto/tls"
	"flag"
	"io"
	"net"
	"os"
	"strings"

	cmdstream "github.com/cmd-stream/cmd-stream-go"
	"github.com/cmd-stream/cmd-stream-go/core"
	csrv "github.com/cmd-stream/cmd-stream-go/core/srv"
	srv "github.com/cmd-stream/cmd-stream-go/server"

	"interop/calc"
)

// serve says where it listens and which connections it lost, and why.
func serve(arguments []string) error {
	var (
		flags    = flag.NewFlagSet("serve", flag.ExitOnError)
		codec    = flags.String("codec", "json", "json, mus or protobuf")
		address  = flags.String("listen", "127.0.0.1:0", "host:port")
		info     = flags.String("info", "default", "the ServerInfo")
		infoSize = flags.Int("info-size", 0, "a ServerInfo of so many bytes i instead")
		workers  = flags.Int("workers", 64, "clients at a time")
		security tlsFlags
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
	server, err := cmdstream.NewServer(calc.Receiver{}, wire.server,
		srv.WithServerInfo([]byte(*info)),
		srv.WithCore(
			csrv.WithWorkersCount(*workers),
			csrv.WithLostConnCallback(func(peer net.Addr, err error) {
				say(line{"lost": peer.String(), "error": err.Error()})
			}),
		),
	)
	if err != nil {
		return err
	}
	listener, err := listen(*address, &security)
	if err != nil {
		return err
	}
	say(line{"address": listener.Addr().String()})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return server.Serve(listener)
}

// listen is what ListenAndServe does, and tells which port was free.
func listen(address string, security *tlsFlags) (core.Listener, error) {
	config, err := security.config()
	if err != nil {
		return nil, err
	}
	plain, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	tcp := plain.(*net.TCPListener)
	if config == nil {
		return tcp, nil
	}
	return tlsListener{tcp, tls.NewListener(tcp, config)}, nil
}

type tlsListener struct {
	*net.TCPListener // its deadline, address and end
	tls              net.Listener
}

func (l tlsListener) Accept() (net.Conn, error) { return l.tls.Accept() }
