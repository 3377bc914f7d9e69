package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
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

// Options say how to mount. The zero value is a private mount without setuid
// bits and device nodes.
type Options struct {
	// Name is what /proc/mounts shows as the device: the image. Default
	// "imgfs".
	Name string
	// AllowOther lets other users than the one who mounts use the files. For
	// ordinary users /etc/fuse.conf must allow that.
	AllowOther bool
	// Suid lets setuid bits and file capabilities take effect, Dev device
	// nodes. Both are for root only.
	Suid, Dev bool
	// Provenance lists the extended attributes that say where the content of a
	// regular file comes from: "user.imgfs.layer", the layer's digest,
	// "user.imgfs.digest", the SHA-256 of the content if the layer's index has
	// it, and "user.imgfs.offset", where in the uncompressed layer it begins.
	// Without it they are there for who asks by name, but copies of the tree
	// do not carry them along.
	Provenance bool
	// Control, if not nil, gives the root's extended attributes that are about
	// the mount and not the image. It is asked for every name that begins with
	// "user.imgfs.", such as "user.imgfs.stats", from several goroutines at
	// once, and twice by who asks for the length first. Values have at most
	// 64 KiB. They are not listed.
	Control func(name string) (value []byte, ok bool)
	// Passthrough has the kernel read files from the cache directory by
	// itself, where they are there whole and checked. Opening a file then
	// costs a request, which without it it does not. Auto is On for trees with
	// regular files of 1 MiB on average, one of which has 16 MiB, if the kernel
	// and this process' rights allow it and an overlayfs can still be mounted
	// on the tree.
	Passthrough Choice
	// IOUring takes requests through io_uring.
	IOUring Choice
	// Debug logs every request and reply.
	Debug bool
	// Told reports whether the user knows already why a read failed, such as
	// that a server is down: then the failure is not logged. It is called
	// from several goroutines at once. Default: every failure is.
	Told func(err error) bool
	// Logf logs a line, without a newline at its end; from several goroutines
	// at once. Default: lines are dropped.
	Logf func(format string, args ...any)

	// useHelper makes root mount through fusermount3 as well.
	useHelper bool
	// keepOpens makes the kernel send OPEN and OPENDIR.
	keepOpens bool
	// disabled are capabilities that the kernel is taken not to have.
	disabled uint64
	// backings, if not nil, are used in place of the tree's.
	backings backings
}

func (o *Options) name() string {
	if o.Name == "" {
		return fsSubtype
	}
	return o.Name
}

func (o *Options) logf(format string, args ...any) {
	if o.Logf != nil {
		o.Logf(format, args...)
	}
}

// A Server serves a mounted tree.
type Server struct {
	target target
	entry  mountEntry // the mount's own line in the mount table
	logf   func(format string, args ...any)
	raw    *rawFS
	conn   conn
	paths  []FastPath
	done   chan struct{}
}

// Mount mounts a tree on a directory and serves it until it is unmounted, by
// whatever means. When Mount returns, the tree is ready to use, though not for
// this process itself. Errors are of type *[Error]; after one nothing is
// mounted. opts may be nil.
func Mount(dir string, t *fs.Tree, opts *Options) (*Server, error) {
	if opts == nil {
		opts = &Options{}
	}
	s, err := mount(dir, t, opts)
	return s, mountError("mount", dir, err)
}

func mount(dir string, t *fs.Tree, opts *Options) (*Server, error) {
	to, err := thisHost().check(dir, opts)
	if err != nil {
		return nil, err
	}
	raw := newRawFS(t, opts)
	defer raw.plan.close()
	if err := raw.plan.refused(opts); err != nil {
		return nil, err
	}
	fd, to, err := attach(to, opts)
	if err != nil {
		return nil, err
	}
	s := &Server{target: to, logf: opts.logf, raw: raw, done: make(chan struct{})}
	if err := s.connect(fd, opts); err != nil {
		gone := detach(to)
		if gone == nil && s.conn != nil {
			s.conn.serve() // which ends at once, and gives up the device
		}
		return nil, errors.Join(err, gone)
	}
	if table, err := mountTable(); err == nil {
		s.entry, _ = mountedAt(table, to.dir)
	}
	s.paths = fastPaths(raw, s.conn, raiseReadAhead(s.entry.device))
	go s.serve()
	return s, nil
}

// connect begins to talk with the kernel, and finds out what it allows.
func (s *Server) connect(fd int, opts *Options) (err error) {
	if s.conn, err = connect(fd, s.raw, opts); err != nil {
		return err
	}
	plan := &s.raw.plan
	if plan.why = plan.try(s.conn, s.raw.can); plan.why == nil {
		s.raw.passThrough(newPassthrough(s.conn, s.raw.backings, s.logf))
	}
	return plan.refused(opts)
}

// serverOptions are what INIT negotiates.
func serverOptions(raw *rawFS, opts *Options) *fuse.MountOptions {
	disabled := opts.disabled
	if raw.plan.why != nil {
		// A mount that may pass reads through has one level less for
		// overlayfs on top of it.
		disabled |= fuse.CAP_PASSTHROUGH
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
		ExtraCapabilities:    fuse.CAP_NO_OPENDIR_SUPPORT,
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
	if s.raw.pass != nil {
		s.raw.pass.close()
	}
	if !s.mounted() {
		return
	}
	// Serving can end without an unmount, when somebody aborts the connection
	// or the device fails. Statfs goes to the server: if it is answered, the
	// mount is another one in the same place.
	var st unix.Statfs_t
	if !isDead(unix.Statfs(s.target.dir, &st)) {
		return
	}
	s.logf("the connection to the kernel broke: unmounting %s", s.target.dir)
	if err := detach(s.target); err != nil {
		s.logf("%v", mountError("unmount", s.target.dir, err))
	}
}

// mounted reports whether this mount is, as far as the mount table tells, still
// where it was.
func (s *Server) mounted() bool {
	table, err := mountTable()
	if err != nil {
		return false
	}
	m, ok := mountedAt(table, s.target.dir)
	return ok && m == s.entry
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

// Unmount unmounts the tree, if that has not happened yet. Errors are of type
// *[Error]; ErrBusy is one of them, and the tree is then still served.
func (s *Server) Unmount() error {
	select {
	case <-s.done:
		return nil
	default:
	}
	if !s.mounted() {
		return nil
	}
	return mountError("unmount", s.target.dir, unmount(s.target, false))
}

// A logWriter is where go-fuse's log lines go.
type logWriter struct{ opts *Options }

// Write drops what go-fuse says of requests that it does not know: each kernel
// has some that older programs answer with ENOSYS, as it does.
func (w logWriter) Write(p []byte) (int, error) {
	if w.opts.Debug || !bytes.HasPrefix(p, []byte("Unimplemented opcode")) {
		w.opts.logf("go-fuse: %s", strings.TrimRight(string(p), "\n"))
	}
	return len(p), nil
}
