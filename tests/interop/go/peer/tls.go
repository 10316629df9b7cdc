package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
)

// tlsFlags are PEM files; none of them means no TLS.
type tlsFlags struct {
	authority, certificate, key, name string
}

func (f *tlsFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&f.authority, "ca", "", "who signed the other side's certificate")
	flags.StringVar(&f.certificate, "cert", "", "our certificate")
	flags.StringVar(&f.key, "key", "", "its key")
	flags.StringVar(&f.name, "name", "", "whom a client expects, if not the address")
}

// config is nil without TLS. A server with an authority asks for certificates: mTLS.
func (f *tlsFlags) config() (*tls.Config, error) {
	if f.authority == "" && f.certificate == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.name}
	if f.authority != "" {
		pem, err := os.ReadFile(f.authority)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, errors.New("no certificate in " + f.authority)
		}
		config.RootCAs, config.ClientCAs = pool, pool
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if f.certificate != "" {
		pair, err := tls.LoadX509KeyPair(f.certificate, f.key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.certificate, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
