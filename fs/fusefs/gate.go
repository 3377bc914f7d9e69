//go:build linux

package fusefs

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

// A gate holds requests back until there is a tree. INIT is answered before: the kernel
// lets a program that waits for INIT end with SIGKILL alone, but a request that the server
// has can be interrupted. So Ctrl-C ends the cd of a shell, too.
//
// Some requests do not wait: that of statfs(2), those for the mount's own attributes, and
// what programs want to know of the root that only ask which file system it is.
type gate struct {
	*rawFS
	opened chan struct{} // closed when there is a tree, or will be none
	close  func()        // closes it, once
	open   atomic.Bool   // there is a tree
}

var _ fuse.RawFileSystem = (*gate)(nil)

func newGate(r *rawFS) *gate {
	g := &gate{rawFS: r, opened: make(chan struct{})}
	g.close = sync.OnceFunc(func() { close(g.opened) })
	return g
}

// show lets requests through.
func (g *gate) show() {
	g.open.Store(true)
	g.close()
}

// refuse fails the requests that wait, and all that come.
func (g *gate) refuse() { g.close() }

// wait waits for the tree.
func (g *gate) wait(cancel <-chan struct{}, h *fuse.InHeader) fuse.Status {
	if g.open.Load() {
		return fuse.OK
	}
	if _, again := g.replayed.Load(h.Unique); again {
		c := &caller{Context: fuse.Context{Caller: h.Caller, Cancel: cancel}, gone: g.gone, threads: g.threads}
		defer c.leave()
		cancel = c.Done()
	}
	select {
	case <-g.opened:
	case <-cancel:
		return fuse.EINTR
	}
	if !g.open.Load() {
		return fuse.EIO
	}
	return fuse.OK
}

func (g *gate) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if s := g.wait(cancel, h); s != fuse.OK {
		return s
	}
	return g.rawFS.Lookup(cancel, h, name, out)
}

func (g *gate) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if !g.open.Load() && in.NodeId == fuse.FUSE_ROOT_ID && asksDevice(in.Pid) {
		out.Attr = fuse.Attr{Ino: fuse.FUSE_ROOT_ID, Mode: unix.S_IFDIR | 0o555, Nlink: 2, Blksize: blockSize, Owner: in.Owner} // no owner is asked for by ACLs
		return fuse.OK                                                                                                          // which is good for this once
	}
	if s := g.wait(cancel, &in.InHeader); s != fuse.OK {
		return s
	}
	return g.rawFS.GetAttr(cancel, in, out)
}

func (g *gate) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	if s := g.wait(cancel, h); s != fuse.OK {
		return nil, s
	}
	return g.rawFS.Readlink(cancel, h)
}

func (g *gate) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if s := g.wait(cancel, &in.InHeader); s != fuse.OK {
		return s
	}
	return g.rawFS.Open(cancel, in, out)
}

func (g *gate) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !g.open.Load() && in.NodeId == fuse.FUSE_ROOT_ID && asksDevice(in.Pid) {
		return fuse.EACCES // df(1) opens its argument for automount(8), and heeds no such error
	}
	if s := g.wait(cancel, &in.InHeader); s != fuse.OK {
		return s
	}
	return g.rawFS.OpenDir(cancel, in, out)
}

func (g *gate) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if s := g.wait(cancel, &in.InHeader); s != fuse.OK {
		return nil, s
	}
	return g.rawFS.Read(cancel, in, buf)
}

func (g *gate) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if _, about := controlName(name); about && h.NodeId == fuse.FUSE_ROOT_ID && !g.open.Load() {
		value, ok := g.controlFor(name, &h.Caller)
		if !ok {
			return 0, fuse.ENODATA
		}
		return fillXattr(value, dest)
	}
	if s := g.wait(cancel, h); s != fuse.OK {
		return 0, s
	}
	return g.rawFS.GetXAttr(cancel, h, name, dest)
}

func (g *gate) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if s := g.wait(cancel, h); s != fuse.OK {
		return 0, s
	}
	return g.rawFS.ListXAttr(cancel, h, dest)
}

func (g *gate) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if s := g.wait(cancel, &in.InHeader); s != fuse.OK {
		return s
	}
	return g.rawFS.ReadDir(cancel, in, out)
}

func (g *gate) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if s := g.wait(cancel, &in.InHeader); s != fuse.OK {
		return s
	}
	return g.rawFS.ReadDirPlus(cancel, in, out)
}

// asksDevice reports whether a program takes nothing from stat(2) but the number of the
// device: umount(8) asks for it before it unmounts, df(1) of every mount.
func asksDevice(thread uint32) bool {
	if thread == 0 || !seesThreads() {
		return false
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", thread))
	return err == nil && slices.Contains([]string{"umount\n", "df\n", "mountpoint\n"}, string(name))
}

// StatFs shows an empty file system as long as there is no tree.
func (g *gate) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if !g.open.Load() {
		out.Bsize, out.Frsize, out.NameLen = blockSize, blockSize, nameMax
		return fuse.OK
	}
	return g.rawFS.StatFs(cancel, h, out)
}

// setTree gives a file system its tree, before the first request that is for it. Where the
// kernel was told so, there are ACLs.
func (r *rawFS) setTree(t *fs.Tree) {
	r.tree, r.failures.tree = t, t
	acls := r.contents.acls
	r.contents = factsOf(t)
	r.contents.acls = r.contents.acls || acls
	r.noXattrs = r.engine && !r.xattrs && !r.contents.xattrs
	if r.engine {
		r.contents.names[capabilityAttr] = true
	}
}
