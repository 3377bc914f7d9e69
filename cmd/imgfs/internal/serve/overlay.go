package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/overlayfs"
	"github.com/imgfs/imgfs/remote/printable"
)

// An Overlay is the writable view of a mount: what is written goes to Upper. The image is
// mounted on a directory of its own, and the view where the user wants to have it.
type Overlay struct {
	Upper   *overlayfs.Upper
	Dir     string      // absolute, without symlinks
	Made    *Mountpoint // that directory, if it was made for the view; else nil
	Options *overlayfs.Options
}

// dir is the directory where the user looks for the image.
func (m *Mount) dir() string {
	if m.Overlay != nil {
		return m.Overlay.Dir
	}
	if m.Succession != nil {
		return m.Succession.dir
	}
	return m.Target.Dir()
}

// madeDir reports whether that directory was made for this mount.
func (m *Mount) madeDir() bool {
	if m.Overlay != nil {
		return m.Overlay.Made != nil
	}
	return m.Made != nil
}

// mountView mounts the writable view over the image, which srv serves, if one is wanted.
func (m *Mount) mountView(ctx context.Context, srv *fusefs.Server) error {
	o := m.Overlay
	if o == nil || m.view != nil {
		return nil
	}
	img := m.Image.Resolved()
	o.Options.Source, o.Options.Image, o.Options.Manifest = img.Name(), img.Name(), img.Descriptor.Digest.String()
	name, manifest := o.Upper.Image()
	view, err := o.Upper.Mount(ctx, m.Target.Dir(), o.Dir, o.Options)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryUnmount)
		defer cancel()
		return errors.Join(err, srv.Detach(ctx))
	}
	if manifest != "" && manifest != o.Options.Manifest {
		m.Env.Warnf("%s was written over %s (%s), and this is %s (%s): files that both have changed are those of the directory",
			printable.Name(o.Upper.Dir()), printable.Name(name), printable.Name(manifest), printable.Name(img.Name()), o.Options.Manifest)
	}
	m.view = view
	if r := m.Recovery; r != nil && r.Store != nil && view.Kind() == overlayfs.Fuse {
		m.keeper.off("systemd ends " + fusefs.FUSEOverlay + ", which serves the writable view, together with the server")
	}
	return nil
}

// A viewNote is what successors need to know of a writable view.
type viewNote struct {
	Mount json.RawMessage `json:"mount"` // from overlayfs.Mount.Describe
	Dir   string          `json:"dir"`
	Made  string          `json:"made,omitempty"` // the directory, if it was made for the view
}

// heldView returns what successors need to go on with the writable view; nil if there is
// none.
func (m *Mount) heldView() (*viewNote, []heldFile, error) {
	o := m.Overlay
	if o == nil {
		return nil, nil, nil
	}
	described, err := m.view.Describe(o.Upper)
	if err != nil {
		return nil, nil, err
	}
	n, held := &viewNote{Mount: described, Dir: o.Dir}, []heldFile{{heldUpper, o.Upper.Lock()}}
	if o.Made != nil {
		n.Made, held = o.Made.Dir, append(held, heldFile{heldView, o.Made.lock})
	}
	return n, held, nil
}

// takeView finds the writable view of a mount, if there is one. It is mounted, whoever
// serves the image.
func (s *Succession) takeView() error {
	n := s.keeper.note.View
	if n == nil {
		return nil
	}
	lock := s.file(heldUpper)
	if lock == nil {
		return errors.New("the directory that takes what is written is not held")
	}
	upper, view, err := overlayfs.Reopen(n.Mount, lock)
	if err != nil {
		return err
	}
	s.overlay, s.view = &Overlay{Upper: upper, Dir: n.Dir}, view
	if made := s.file(heldView); made != nil {
		s.overlay.Made = &Mountpoint{Dir: n.Made, lock: made}
	}
	return nil
}

// giveUp gives up what takeView has found, when nothing is mounted any more.
func (o *Overlay) giveUp() {
	if o != nil {
		o.Upper.Close()
		o.Made.Remove()
	}
}

// A server is a mount that this process serves: [*fusefs.Server], or that with a view.
type server interface {
	Wait()
	Orphaned() <-chan struct{}
	Unmount(ctx context.Context) error
	Detach(ctx context.Context) error
	DetachAll(ctx context.Context) error
	Show(tree *fs.Tree, opts *fusefs.Options) error
	Refuse()
}

var _, _ server = (*fusefs.Server)(nil), viewServer{}

// A viewServer is a mount with its writable view, which is taken away before it.
type viewServer struct {
	*fusefs.Server
	view *overlayfs.Mount
}

// Unmount implements server.
func (s viewServer) Unmount(ctx context.Context) error {
	if err := s.view.Unmount(ctx, false); err != nil {
		return err
	}
	return s.Server.Unmount(ctx)
}

// Detach implements server.
func (s viewServer) Detach(ctx context.Context) error {
	if err := s.view.Unmount(ctx, true); err != nil {
		return err
	}
	return s.Server.Detach(ctx)
}

// DetachAll implements server. Nobody serves the view any more afterwards.
func (s viewServer) DetachAll(ctx context.Context) error {
	err := errors.Join(s.Detach(ctx), s.Server.DetachAll(ctx))
	s.view.Abandon()
	return err
}

// RemoveBoth is [RemoveMade] for the directory of a mount, and that of its view.
func RemoveBoth(mount fusefs.MountPoint) {
	if mount.Shown != "" {
		RemoveMade(mount.Shown)
	}
	RemoveMade(mount.Dir)
}

// kindText says how a view is mounted.
func kindText(view *overlayfs.Mount) string {
	if view.Kind() == overlayfs.Fuse {
		return fusefs.FUSEOverlay
	}
	return "overlayfs"
}

// written says where what is written goes; "" if nothing can be written.
func (m *Mount) written() string {
	if m.view == nil {
		return ""
	}
	return fmt.Sprintf(", written to %s by %s", printable.Name(m.Overlay.Upper.Dir()), kindText(m.view))
}
