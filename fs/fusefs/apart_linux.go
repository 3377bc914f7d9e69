package fusefs

import (
	"context"
	"os"

	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// An Apart is a mount that another process is to serve, or this one on behalf of another
// mount namespace, by [ServeApart].
type Apart struct {
	// Device is the FUSE device of the mount. Until it is served accesses wait. The mount
	// is dead when the last copy of it is closed.
	Device *os.File
	// Number is what stat(2) says of files there, as in the mount table.
	Number string
	// Proc is the /proc of the PID namespace in which the mount was made, or nil if there is
	// none. The server needs it to see who reads: only there they have the numbers that
	// requests name.
	Proc *os.File

	at attached
}

// AttachApart mounts on the directory that was checked and leaves serving to others, such
// as a process outside of this process's namespaces. The mount is in the user namespace
// of this process, unless fusermount3 has made it. Errors are of type *[Error]; after one
// nothing is mounted.
func (t *Target) AttachApart(ctx context.Context, opts *Options) (*Apart, error) {
	fd, at, err := t.attach(ctx, opts)
	if err != nil {
		return nil, mountError("mount", t.name, err)
	}
	return &Apart{Device: os.NewFile(uintptr(fd), "/dev/fuse"), Number: at.entry.device, Proc: openProc(), at: at}, nil
}

// openProc returns the /proc of this PID namespace, or nil.
func openProc() *os.File {
	if !seesThreads() {
		return nil
	}
	f, err := os.OpenFile("/proc", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	return f
}

// Close closes the files, of which whoever serves the mount has copies.
func (a *Apart) Close() {
	_ = a.Device.Close()
	_ = a.Proc.Close()
}

// Detach takes the mount out of the directory tree of this process's mount namespace, also
// while it is in use. Others that have it keep it. Errors are of type *[Error].
func (a *Apart) Detach(ctx context.Context) error {
	return mountError("unmount", a.at.entry.dir, a.at.unmount(ctx, true))
}

// ServeApart serves a tree on the device of an [Apart], of which it takes Device, Number
// and Proc. The files are the server's from here on, also if there is an error. The mount is
// not the server's to unmount: Unmount and Detach do nothing, Orphaned never tells, and Wait
// returns when the kernel has ended the connection.
func ServeApart(apart *Apart, tree *fs.Tree, opts *Options) (*Server, error) {
	alone := *opts
	alone.Kept = nil // no other server has what it would need
	opts = &alone
	raw := newRawFS(tree, opts)
	defer raw.plan.close()
	raw.threads = threadsIn(apart.Proc)
	s := &Server{logf: opts.logf, raw: raw, proc: apart.Proc, done: make(chan struct{}), orphaned: make(chan struct{})}
	err := raw.plan.refused(opts)
	if err == nil {
		err = s.connectTo(apart.Device, opts)
	}
	if err != nil {
		apart.Close()
		return nil, mountError("serve", opts.name(), err)
	}
	s.paths = fastPaths(raw, s.conn, raiseReadAhead(apart.Number))
	s.watching = &watch{ended: [2]int{-1, -1}}
	go s.serve()
	return s, nil
}

// connectTo connects the server with a device, which is closed.
func (s *Server) connectTo(device *os.File, opts *Options) error {
	fd, err := duplicate(device)
	if err != nil {
		return err
	}
	return s.connect(fd, opts)
}

// duplicate takes the descriptor out of a file: it is not closed with that.
func duplicate(f *os.File) (int, error) {
	defer f.Close()
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
}
