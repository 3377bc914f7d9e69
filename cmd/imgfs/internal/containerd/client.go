package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/leases"
	leaseproxy "github.com/containerd/containerd/v2/core/leases/proxy"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/imgfs/imgfs/remote/printable"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// DefaultContainerd is where clients of containerd find it, and DefaultNamespace where ctr
// looks for images.
const (
	DefaultContainerd = "/run/containerd/containerd.sock"
	DefaultNamespace  = namespaces.Default
)

// ErrNoContainerd says that nothing answers on the socket of containerd. It comes wrapped.
var ErrNoContainerd = errors.New("containerd does not answer")

const (
	// dialLimit is how long connecting to the socket may take.
	dialLimit = 5 * time.Second
	// callLimit is how long containerd may take to answer a call: its metadata is locked
	// while it collects garbage.
	callLimit = 2 * time.Minute
)

// A Client talks to a running containerd. It is safe for concurrent use.
type Client struct {
	address    string
	conn       *grpc.ClientConn
	content    content.Store
	images     imagesapi.ImagesClient
	leases     leases.Manager
	namespaces namespacesapi.NamespacesClient
}

// Dial connects to containerd by its socket. The error wraps ErrNoContainerd if nobody
// listens there.
func Dial(ctx context.Context, address string) (*Client, error) {
	address, err := filepath.Abs(address)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "unix", address)
	}
	first, err := dial(ctx, "") // grpc's own error would come later, and say less
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: %w", ErrNoContainerd, err)
	}
	first.Close()
	conn, err := grpc.NewClient("passthrough:///containerd", grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a socket that root alone may use
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize), grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", printable.Name(address), err)
	}
	return &Client{
		address: address, conn: conn, content: proxy.NewContentStore(conn), images: imagesapi.NewImagesClient(conn),
		leases: leaseproxy.NewLeaseManager(leasesapi.NewLeasesClient(conn)), namespaces: namespacesapi.NewNamespacesClient(conn),
	}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// call calls containerd, which may take as long as callLimit. The error says whose it is.
func (c *Client) call(ctx context.Context, f func(ctx context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err := f(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case limited.Err() != nil:
		return fmt.Errorf("containerd at %s: no answer for %v", printable.Name(c.address), callLimit)
	}
	return c.fault(err)
}

// fault says of an error that it is containerd's. What strangers wrote may be in its text.
func (c *Client) fault(err error) error {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	return &faultError{fmt.Sprintf("containerd at %s: %s", printable.Name(c.address), printable.Line(text)), err}
}

// A faultError is an error of containerd with a text for people.
type faultError struct {
	text string
	err  error
}

func (e *faultError) Error() string { return e.text }
func (e *faultError) Unwrap() error { return e.err }

// isNotFound reports whether a call of an API that is no proxy of containerd's own failed
// as what it asks for is not there.
func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// Namespaces returns the names of all namespaces.
func (c *Client) Namespaces(ctx context.Context) (names []string, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		all, err := c.namespaces.List(ctx, &namespacesapi.ListNamespacesRequest{})
		for _, n := range all.GetNamespaces() {
			names = append(names, n.GetName())
		}
		return err
	})
	return names, err
}
