//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs/internal/journal"
)

const (
	// maxBackground is how many reads for readahead may wait at a time. The
	// kernel's own default of 12 would let a few slow reads from a registry
	// hold up all others.
	maxBackground = 256

	// readAheadKB is how far the kernel reads ahead in a file, in KiB.
	// Sequential reads are 1.5 times as fast as with its default of 128.
	readAheadKB = maxRead / 1024
)

// A Server serves a mounted tree.
type Server struct {
	at    attached
	logf  func(format string, args ...any)
	raw   *rawFS
	held  *gate // nil if there was a tree from the beginning
	conn  conn
	proc  *os.File // raw.threads need it; nil is none
	paths []FastPath
	done  chan struct{}

	readAhead error // why it could not be raised; nil if it was

	kept    *Kept // what another server needs to go on, or nil
	wanted  bool  // recovery was asked for
	planned bool  // INIT has announced passthrough
	depth   int   // and that so many file systems may be stacked

	orphaned  chan struct{}
	displaced chan struct{}
	watching  *watch
}

// Mount mounts a tree on a directory and serves it until it is unmounted, by
// whatever means: it is Check and [Target.Mount].
func Mount(ctx context.Context, dir string, t *fs.Tree, opts *Options) (*Server, error) {
	to, err := Check(ctx, dir, opts)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	return to.Mount(ctx, t, opts)
}

// Mount mounts a tree on the directory that was checked, and serves it until it
// is unmounted, by whatever means. If another directory has its name by then, or
// ctx ends before the mount is ready, that is an error. When Mount returns, the
// tree is ready to use, though not for this process itself. Errors are of type
// *[Error]; after one nothing is mounted. opts are those of Check.
func (t *Target) Mount(ctx context.Context, tree *fs.Tree, opts *Options) (*Server, error) {
	if opts == nil {
		opts = &Options{}
	}
	s, err := t.mount(ctx, tree, opts)
	return s, mountError("mount", t.name, err)
}

// Attach is [Target.Mount] before there is a tree. What looks into the mount waits until
// [Server.Show] gives it one, or [Server.Refuse] says that there will be none; Ctrl-C and
// signals end who waits. statfs(2) and Options.Control are answered from the beginning.
// Passthrough is used only if it is On.
func (t *Target) Attach(ctx context.Context, opts *Options) (*Server, error) {
	if opts == nil {
		opts = &Options{}
	}
	s, err := t.mount(ctx, nil, opts)
	return s, mountError("mount", t.name, err)
}

// Show gives a mount of [Target.Attach] its tree. opts are those of Attach. It is called
// once. Errors are of type *[Error], and those who wait wait on after one.
func (s *Server) Show(tree *fs.Tree, opts *Options) error {
	if opts == nil {
		opts = &Options{}
	}
	s.raw.setTree(tree)
	if s.raw.plan.why == nil {
		s.raw.plan = planPassthrough(opts, &s.raw.contents, s.raw.backings)
	}
	defer s.raw.plan.close()
	if err := s.passThrough(opts); err != nil {
		return mountError("mount", s.at.entry.dir, err)
	}
	s.paths = fastPaths(s.raw, s.conn, s.readAhead)
	if err := s.keep(opts, true); err != nil {
		return mountError("mount", s.at.entry.dir, err)
	}
	s.held.show()
	return nil
}

// Refuse fails what waits in a mount of [Target.Attach] that gets no tree, and what comes
// there from now on. It does not unmount.
func (s *Server) Refuse() { s.held.refuse() }

// mount mounts and begins to serve. tree is nil if it is still to come.
func (t *Target) mount(ctx context.Context, tree *fs.Tree, opts *Options) (*Server, error) {
	raw := newRawFS(tree, opts)
	defer raw.plan.close()
	if err := raw.plan.refused(opts); err != nil {
		return nil, err
	}
	fd, at, err := t.attach(ctx, opts)
	if err != nil {
		return nil, err
	}
	s := &Server{at: at, logf: opts.logf, raw: raw, done: make(chan struct{}), orphaned: make(chan struct{}), displaced: make(chan struct{})}
	if tree == nil {
		s.held = newGate(raw)
	}
	if s.wanted = opts.Kept != nil; opts.keeps() {
		s.kept = opts.Kept
	}
	s.planned, s.depth = raw.plan.why == nil, raw.plan.depth
	if err := s.connect(fd, opts); err != nil {
		gone := s.at.unmount(context.WithoutCancel(ctx), true)
		if gone == nil && s.conn != nil {
			s.conn.serve() // which ends at once, and gives up the device
		}
		return nil, errors.Join(err, gone)
	}
	if err := context.Cause(ctx); err != nil {
		gone := s.at.unmount(context.WithoutCancel(ctx), true)
		go s.conn.serve() // which ends when the kernel knows
		return nil, errors.Join(err, gone)
	}
	s.readAhead = raiseReadAhead(s.at.entry.device)
	s.paths = fastPaths(raw, s.conn, s.readAhead)
	if err := s.keep(opts, tree != nil); err != nil {
		opts.logf("it goes without recovery: %v", err)
		s.kept = nil
	}
	s.watching = newWatch(s, opts)
	go s.serve()
	return s, nil
}

// connect begins to talk with the kernel, and finds out what it allows.
func (s *Server) connect(fd int, opts *Options) (err error) {
	if s.conn, err = connect(fd, s.raw, s.held, opts); err != nil || s.held != nil {
		return err
	}
	return s.passThrough(opts)
}

// passThrough has the kernel read files by itself, if the mount is to have that.
func (s *Server) passThrough(opts *Options) error {
	plan := &s.raw.plan
	if plan.why = plan.try(s.conn, s.raw.can); plan.why == nil {
		s.raw.passThrough(newPassthrough(s.conn, s.raw.backings, s.table(), s.logf))
	}
	return plan.refused(opts)
}

// table returns where opens of a new mount are noted for the next server.
func (s *Server) table() *journal.Table {
	if s.kept == nil {
		return nil
	}
	t, _ := journal.NewTable(s.kept.memory)
	return t
}

// serverOptions are what INIT negotiates.
func serverOptions(raw *rawFS, opts *Options) *fuse.MountOptions {
	disabled := opts.disabled
	if raw.plan.why != nil {
		// A mount that may pass reads through has one level less for
		// overlayfs on top of it.
		disabled |= fuse.CAP_PASSTHROUGH
	}
	extra := uint64(fuse.CAP_NO_OPENDIR_SUPPORT)
	if raw.export {
		extra |= fuse.CAP_EXPORT_SUPPORT
	}
	return &fuse.MountOptions{
		MaxWrite:      maxRead, // go-fuse's name for the limit of both ways
		MaxBackground: maxBackground,
		Debug:         opts.Debug,
		Logger:        log.New(logWriter{opts}, "", 0),
		// Content does not change, whatever the kernel may think of a time
		// or size.
		ExplicitDataCacheControl: true,
		EnableSymlinkCaching:     true,
		// Where there are ACLs, they decide as they would on a disk. Where
		// there are none, the kernel need not ask.
		EnableAcl:            raw.contents.acls,
		ExtraCapabilities:    extra,
		IDMappedMount:        raw.idmapped,
		DisabledCapabilities: disabled,
		MaxStackDepth:        raw.plan.depth,
		// Replies are in memory, and go-fuse would try a pipe for each of them.
		// Those from a file are no faster through one: 256 MiB by splice(2)
		// took 109 ms cold and 70 warm, by pread(2) 102 and 71, and the daemon
		// 81 ms of a processor in place of 75.
		DisableSplice: true,
	}
}

// raiseReadAhead sets the readahead of a mount. Only root may, and it is only
// about speed.
func raiseReadAhead(device string) error {
	if device == "" {
		return errors.New("the mount is not in the mount table")
	}
	knob := fmt.Sprintf("/sys/class/bdi/%s/read_ahead_kb", device)
	err := os.WriteFile(knob, []byte(strconv.Itoa(readAheadKB)), 0)
	if errors.Is(err, os.ErrPermission) {
		return errors.New("only root may raise it")
	}
	return err
}

func (s *Server) serve() {
	defer close(s.done)
	s.conn.serve()
	s.watching.stop()
	_ = s.proc.Close() // nil does no harm
	if s.raw.pass != nil {
		s.raw.pass.close()
	}
	m, ok := s.at.find()
	if !ok {
		return
	}
	// Serving can end without an unmount, when somebody aborts the connection
	// or the device fails. Statfs goes to the server: if it is answered, the
	// mount is another one in the same place.
	if !isDead(statfs(context.Background(), m.dir)) {
		return
	}
	s.logf("the connection to the kernel broke: unmounting %s", m.dir)
	if err := s.Detach(context.Background()); err != nil {
		s.logf("%v", err)
	}
}

// FastPaths tells which ways to serve this mount uses, and of the others why
// not, in an order and by names that stay: "no-open" and "no-opendir" (files and
// directories are opened without a request), "readdirplus" (lists come with
// attributes), "large-reads" (of 1 MiB), "readahead" (of as much),
// "symlink-cache" (the kernel keeps where symlinks lead), "passthrough" and
// "io-uring" (see [Options]).
func (s *Server) FastPaths() []FastPath { return slices.Clone(s.paths) }

// Wait returns when the tree has been unmounted, from wherever, and nobody
// uses it any more.
func (s *Server) Wait() { <-s.done }

// Orphaned returns a channel that is closed when there is no reason to serve
// any longer, though the kernel might ask again:
//
//   - The tree is mounted no longer in the mount namespace of this process, and
//     none of the processes of the machine uses it. Copies of the mount that are
//     left in other namespaces do not count. This is only noticed where this
//     process can see all that may use the tree.
//   - With [Options].EndAlone, nobody else is in the mount namespace of this
//     process.
//   - The connection to the kernel has ended, but a request hangs.
//
// The end of the process then ends the connection.
func (s *Server) Orphaned() <-chan struct{} { return s.orphaned }

// Displaced returns a channel that is closed when the tree is mounted no longer in the
// mount namespace of this process, though somebody may use it. After Wait it may never be
// closed.
func (s *Server) Displaced() <-chan struct{} { return s.displaced }

// Unmount unmounts the tree, if that has not happened yet. Errors are of type
// *[Error]; ErrBusy is one of them, and the tree is then still served.
func (s *Server) Unmount(ctx context.Context) error { return s.unmount(ctx, false) }

// Detach takes the tree out of the directory tree, if that has not happened
// yet, also while it is in use. It is served on to those who use it, and Wait
// waits for them. Errors are of type *[Error].
func (s *Server) Detach(ctx context.Context) error { return s.unmount(ctx, true) }

// DetachAll is Detach also for copies of the mount in the mount namespace of this
// process, which bind mounts are: they would be dead when the process ends.
func (s *Server) DetachAll(ctx context.Context) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	table, err := mountTable()
	errs := []error{err}
	for _, m := range table {
		if m.device == s.at.entry.device {
			errs = append(errs, mountError("unmount", m.dir, newAttached(ctx, m, s.at.helper).unmount(ctx, true)))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) unmount(ctx context.Context, lazy bool) error {
	select {
	case <-s.done:
		return nil
	default:
		return mountError("unmount", s.at.entry.dir, s.at.unmount(ctx, lazy))
	}
}

// A logWriter is where go-fuse's log lines go.
type logWriter struct{ opts *Options }

// Write drops what go-fuse says of requests that it does not know: each kernel
// has some that older programs answer with ENOSYS, as it does. And it drops what is
// said of answers with ENOENT from the kernel: whoever asked was killed.
func (w logWriter) Write(p []byte) (int, error) {
	unasked := bytes.HasPrefix(p, []byte("Unimplemented opcode")) || bytes.HasPrefix(p, []byte("writer: Write/Writev failed, err: 2="))
	if w.opts.Debug || !unasked {
		w.opts.logf("go-fuse: %s", strings.TrimRight(string(p), "\n"))
	}
	return len(p), nil
}
