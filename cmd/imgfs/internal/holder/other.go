//go:build !linux

package holder

import (
	"context"
	"errors"
	"os"
)

// Is reports whether a command line is a holder's.
func Is([]string) bool { return false }

// A Link is a server's end of what connects it with its holder.
type Link struct{}

// Start starts the holder of a mount. Only Linux has them.
func Start(Config) (*Link, error) { return nil, errors.ErrUnsupported }

// Inherit is for a successor.
func Inherit(Config) (*Link, Succeed, error) { return nil, Succeed{}, errors.ErrUnsupported }

// Hold gives files to the holder.
func (l *Link) Hold(...*os.File) error { return errors.ErrUnsupported }

// Held returns copies of the files that successors get.
func (l *Link) Held() ([]*os.File, error) { return nil, errors.ErrUnsupported }

// SetName sets Config.Name.
func (l *Link) SetName(string) {}

// Serving says that this process serves.
func (l *Link) Serving() error { return errors.ErrUnsupported }

// Ready says that a standby could take over at once.
func (l *Link) Ready() error { return errors.ErrUnsupported }

// AwaitGo waits until the server that a standby is to follow has been ended.
func (l *Link) AwaitGo(context.Context) (died int, err error) { return -1, errors.ErrUnsupported }

// Refuse says why a successor cannot serve.
func (l *Link) Refuse(error) {}

// Done says that the mount is gone.
func (l *Link) Done() {}

// State tells of the holder.
func (l *Link) State() LinkState { return LinkState{} }

// ReadGone returns what a holder left that gave up.
func ReadGone(sockets, device string, owner int) (Gone, bool) { return Gone{}, false }

// Forget removes what holders have left.
func Forget(sockets, device string, owner int) {}

// A Client asks a holder something.
type Client struct{}

// Dial finds the holder of a mount: there is none.
func Dial(context.Context, string, int) (*Client, Status, error) { return nil, Status{}, ErrNone }

// Continue continues nothing.
func Continue(context.Context, string, int) {}

// Pid is the holder's process.
func (c *Client) Pid() int { return 0 }

// Status asks how the mount is.
func (c *Client) Status(context.Context) (Status, error) { return Status{}, errors.ErrUnsupported }

// Upgrade puts another program in the server's place.
func (c *Client) Upgrade(context.Context, *os.File) error { return errors.ErrUnsupported }

// End ends the holder of a mount that nobody serves.
func (c *Client) End(context.Context) error { return errors.ErrUnsupported }
