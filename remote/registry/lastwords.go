package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
)

// A clientCertificate chooses the certificate that a server is shown, and knows whether
// it has asked for one. With TLS 1.3 a server says what it thinks of the certificate only
// after the handshake, when it may have closed the connection: what is written then fails,
// and why is still to be read.
type clientCertificate struct {
	certificates []tls.Certificate
	asked        atomic.Bool
}

// choose is for tls.Config.GetClientCertificate. It chooses as crypto/tls does without it.
func (c *clientCertificate) choose(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c.asked.Store(true)
	for i := range c.certificates {
		if info.SupportsCertificate(&c.certificates[i]) == nil {
			return &c.certificates[i], nil
		}
	}
	return new(tls.Certificate), nil
}

// dialing returns a function that dials as dial does. Connections on which the server has
// asked for a certificate lose what is written after the server has closed them: the next
// read says why it did.
func (c *clientCertificate) dialing(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return lastWords{conn, &c.asked}, nil
	}
}

// A lastWords is a connection that is read to its end before it fails.
type lastWords struct {
	net.Conn
	asked *atomic.Bool
}

// Write implements net.Conn.
func (c lastWords) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.asked.Load() && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		return len(p), nil
	}
	return n, err
}
