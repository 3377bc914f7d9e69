package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
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
	fuse   *fuse.Server
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
	fd, err := attach(to, opts)
	if err != nil {
		return nil, err
	}
	s := &Server{target: to, logf: opts.logf, done: make(chan struct{})}
	// The name says that the descriptor is mounted already. It is the
	// server's from here on.
	s.fuse, err = fuse.NewServer(raw, "/dev/fd/"+strconv.Itoa(fd), serverOptions(raw, opts))
	if err != nil {
		return nil, errors.Join(err, detach(to))
	}
	if table, err := mountTable(); err == nil {
		s.entry, _ = mountedAt(table, to.dir)
	}
	raiseReadAhead(s.entry.device)
	go s.serve()
	return s, nil
}

// serverOptions are what INIT negotiates.
func serverOptions(raw *rawFS, opts *Options) *fuse.MountOptions {
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
		EnableAcl:         raw.contents.acls,
		ExtraCapabilities: fuse.CAP_NO_OPENDIR_SUPPORT,
		// A mount that may pass reads through has one level less for
		// overlayfs on top of it.
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		// Replies are in memory. go-fuse would try a pipe for each of them.
		DisableSplice: true,
	}
}

// raiseReadAhead sets the readahead of a mount. Only root may, and it is only
// about speed.
func raiseReadAhead(device string) {
	if device == "" || os.Geteuid() != 0 {
		return
	}
	knob := fmt.Sprintf("/sys/class/bdi/%s/read_ahead_kb", device)
	_ = os.WriteFile(knob, []byte(strconv.Itoa(readAheadKB)), 0)
}

func (s *Server) serve() {
	defer close(s.done)
	s.fuse.Serve()
	if !s.mounted() {
		return
	}
	// Serving can end without an unmount, when somebody aborts the connection
	// or the device fails. Statfs goes to the server: if it is answered, the
	// mount is another one in the same place.
	var st unix.Statfs_t
	if !errors.Is(unix.Statfs(s.target.dir, &st), unix.ENOTCONN) {
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
