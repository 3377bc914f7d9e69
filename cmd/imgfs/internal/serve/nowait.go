package serve

import (
	"context"
	"fmt"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/printable"
)

// openImage opens the image of a directory that is mounted on already, while others look
// there and wait. It returns false if there is nothing to serve: the image cannot be
// opened, or the mount is gone, or ctx has ended. Nothing is mounted then, and who waited
// has an error.
func (m *Mount) openImage(ctx context.Context, end *closer, log *mountLog, stats *statsServer, ended func()) (shown bool, err error) {
	if m.Succession == nil {
		m.keep()
	}
	switch {
	case m.Succession != nil: // the user has long gone on
		m.tellManager("opening " + printable.Name(m.Name))
	case m.Parent != nil:
		m.warnOwner()
		line := fmt.Sprintf("mounting %s on %s: who looks there waits until the image is open", printable.Name(m.Name), printable.Name(m.Target.Dir()))
		if m.Env.Quiet && m.Made != nil {
			line = m.Made.Dir
		}
		if err := m.report(log, line); err != nil {
			end.refuse()
			return false, err
		}
	default:
		m.tellManager("opening " + printable.Name(m.Name))
	}
	opening, cancel := context.WithCancel(ctx)
	defer cancel()
	var img *image.Image
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		img, err = m.Open(opening)
	}()
	select {
	case <-opened:
	case <-ctx.Done():
	case <-end.done:
	case <-end.srv.Orphaned():
	}
	select {
	case <-opened:
		if err == nil && ctx.Err() == nil {
			break
		}
		return false, m.failed(ctx, end, err)
	default:
		end.refuse()
		cancel()
		ended()
		<-opened // for as long as the end of the process waits for that
		return false, nil
	}
	m.Image = img
	m.opened.Store(img)
	m.Options.Identity = m.identity()
	m.keep() // before there is something to be shown again
	stats.opened(m)
	if err := end.srv.Show(img.Tree(), m.Options); err != nil {
		return false, m.failed(ctx, end, err)
	}
	return true, nil
}

// failed ends a mount whose image could not be opened. In the background the log has the
// reason before the mount is gone.
func (m *Mount) failed(ctx context.Context, end *closer, err error) error {
	switch {
	case ctx.Err() != nil:
		err = nil // as it was told to
	case m.background():
		m.Env.Error(err)
		err = &cli.ExitError{Code: cli.ExitFailure}
	}
	end.refuse()
	return err
}

// refuse ends a mount that has nothing to show: it is taken out of the directory tree
// first, so that who waits there, and then gets an error, finds the directory below when
// they look again.
func (c *closer) refuse() {
	err := c.try(c.srv.Detach, nil)
	if err == nil {
		c.abandon()
	} else {
		c.warnf("%v", err)
	}
	c.srv.Refuse()
	select { // the kernel may still hand over what was asked
	case <-c.done:
	case <-time.After(endLimit / 4):
	}
}
