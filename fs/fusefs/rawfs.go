//go:build linux

package fusefs

import (
	"errors"
	"io"
	"os"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

const (
	// forever is the lifetime of everything the kernel keeps, in seconds: a
	// hundred years.
	forever = 100 * 365 * 24 * 3600

	nameMax   = 255
	targetMax = 4095 // what the kernel takes in a reply to READLINK
	blockSize = 4096
	xattrMax  = 64 << 10 // XATTR_SIZE_MAX
	// xattrListMax is XATTR_LIST_MAX.
	xattrListMax = 64 << 10
)

// A rawFS answers the kernel's requests from a tree.
type rawFS struct {
	fuse.RawFileSystem
	tree     *fs.Tree
	contents treeFacts
	failures failureLog

	provenance, deadDevices bool // as Options have them
	control                 func(name string) ([]byte, bool)
	documents               documents // that are being read
	owner                   uint32    // the user who mounts
	ids                     idMaps
	owners                  func(uid, gid uint32) (uint32, uint32) // nil: they are the image's

	// engine is Options.Engine; noXattrs says that there are no attributes at all. That is
	// said to the kernel once, which then asks for none for the life of the mount.
	engine, noXattrs bool
	xattrs           bool // Options.Xattrs
	// export and idmapped say what INIT announces: that inodes can be looked up by their
	// numbers, and that copies of the mount may have other owners.
	export, idmapped bool

	// noOpen and noOpendir answer OPEN and OPENDIR with ENOSYS, once for the
	// life of the mount. keepOpens forbids it. These and pass are set before
	// the first request but INIT.
	keepOpens, noOpen, noOpendir bool
	can, disabled                uint64 // capabilities of the kernel; without these
	backings                     Backings
	plan                         passPlan
	pass                         *passthrough // nil: the mount has none
	results                      sync.Pool    // of *readResult

	// gone tells whether the connection is no more, and nobody waits for an
	// answer. It is set before the first request.
	gone func() bool
	// threads are those that callers are of.
	threads threads
	// replayed are the unique numbers of requests that another server has read. These may
	// be interrupted for no signal.
	replayed sync.Map
}

var _ fuse.RawFileSystem = (*rawFS)(nil)

// newRawFS returns a file system of a tree, or of one that it gets by setTree if it is nil.
func newRawFS(t *fs.Tree, opts *Options) *rawFS {
	r := &rawFS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		failures:      failureLog{logf: opts.logf, reported: opts.AlreadyReported},
		provenance:    opts.Provenance,
		deadDevices:   opts.DeadDevices,
		control:       opts.Control,
		owner:         uint32(os.Getuid()),
		ids:           ownIDs(),
		owners:        opts.Owners,
		engine:        opts.Engine,
		xattrs:        opts.Xattrs,
		export:        opts.Export,
		idmapped:      opts.Engine,
		keepOpens:     opts.keepOpens,
		disabled:      opts.disabled,
		backings:      opts.Backings,
		gone:          func() bool { return false },
		threads:       ownThreads(),
	}
	if r.backings == nil {
		r.backings = noBackings{}
	}
	if t == nil {
		// What is in it is not known yet, so it may have ACLs.
		r.contents.acls = true
		r.plan = planWithoutTree(opts)
		return r
	}
	r.setTree(t)
	r.plan = planPassthrough(opts, &r.contents, r.backings)
	return r
}

func (r *rawFS) String() string { return fsType }

// negotiated takes note of the kernel's capabilities.
func (r *rawFS) negotiated(can uint64) {
	r.can = can &^ r.disabled
	if r.keepOpens {
		return
	}
	r.noOpen = r.can&fuse.CAP_NO_OPEN_SUPPORT != 0
	r.noOpendir = r.can&fuse.CAP_NO_OPENDIR_SUPPORT != 0
}

// passThrough answers opens from now on, with p. It is called before the first
// request but INIT.
func (r *rawFS) passThrough(p *passthrough) { r.pass, r.noOpen = p, false }

// Lookup answers a missing name with node 0, which the kernel keeps as well. "." is any
// inode, which the kernel has forgotten, and ".." the directory that one is in: it asks
// for these when an inode is opened by a handle (open_by_handle_at(2), NFS, overlayfs).
// Numbers are never used for another inode, so the generation is always 0.
func (r *rawFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, ok := r.tree.Node(h.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	if name == "." {
		r.fillEntry(dir, out)
		return fuse.OK
	}
	if !isDir(dir) {
		return fuse.ENOTDIR
	}
	if name == ".." {
		r.fillEntry(dir.Parent(), out)
		return fuse.OK
	}
	if len(name) > nameMax {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	if n, ok := dir.Child(name); ok {
		r.fillEntry(n, out)
	} else {
		out.EntryValid = forever
	}
	return fuse.OK
}

func (r *rawFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, ok := r.tree.Node(in.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	r.fillAttr(n, &out.Attr)
	out.AttrValid = forever
	return fuse.OK
}

func (r *rawFS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, ok := r.tree.Node(h.NodeId)
	if !ok {
		return nil, fuse.Status(unix.ESTALE)
	}
	if n.Mode()&unix.S_IFMT != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	target := n.Target()
	if len(target) > targetMax {
		return nil, fuse.Status(unix.ENAMETOOLONG)
	}
	return []byte(target), fuse.OK
}

func (r *rawFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		return fuse.EROFS
	}
	if r.noOpen {
		return fuse.ENOSYS
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	if r.pass == nil {
		return fuse.OK
	}
	n, ok := r.tree.Node(in.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	if n.Attr().Size >= minPassthrough {
		return r.pass.open(n, in, out)
	}
	return fuse.OK
}

// Release comes for each open that was answered.
func (r *rawFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if in.Fh != 0 && r.pass != nil {
		r.pass.release(in.NodeId, in.Fh)
	}
}

func (r *rawFS) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if r.noOpendir {
		return fuse.ENOSYS
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	return fuse.OK
}

// Flush has nothing to do: after ENOSYS the kernel asks no more.
func (r *rawFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Read reads from a regular file. A short reply would tell the kernel that
// the file ends there, so there is none but at the end.
//
// The context ends with the reader; that must not end work that others wait for
// as well.
func (r *rawFS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, ok := r.tree.Node(in.NodeId)
	if !ok {
		return nil, fuse.Status(unix.ESTALE)
	}
	a := n.Attr()
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fuse.EINVAL
	}
	off := int64(in.Offset)
	if off < 0 || off >= a.Size {
		return r.result(nil), fuse.OK
	}
	buf = buf[:min(int64(len(buf)), a.Size-off)]
	ctx := &caller{Context: fuse.Context{Caller: in.Caller, Cancel: cancel}, gone: r.gone, threads: r.threads}
	defer ctx.leave()
	got, err := n.ReadAt(ctx, buf, off)
	if errors.Is(err, io.EOF) && got == len(buf) {
		err = nil
	}
	if err == nil && got < len(buf) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, r.failures.status(ctx, "read", n, err)
	}
	return r.result(buf), fuse.OK
}

// A readResult is a reply to READ. go-fuse's own is allocated for each.
type readResult struct {
	data []byte
	pool *sync.Pool
}

func (r *rawFS) result(data []byte) *readResult {
	res, ok := r.results.Get().(*readResult)
	if !ok {
		res = &readResult{pool: &r.results}
	}
	res.data = data
	return res
}

func (r *readResult) Bytes([]byte) ([]byte, fuse.Status) { return r.data, fuse.OK }
func (r *readResult) Size() int                          { return len(r.data) }

// Done is called once, when the reply has been sent.
func (r *readResult) Done() {
	r.data = nil
	r.pool.Put(r)
}

// Lseek leaves SEEK_DATA and SEEK_HOLE to the kernel, which then takes a file
// for data to its end.
func (r *rawFS) Lseek(<-chan struct{}, *fuse.LseekIn, *fuse.LseekOut) fuse.Status {
	return fuse.ENOSYS
}

// StatFs shows a full file system of the size of all regular files.
func (r *rawFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Blocks = r.contents.blocks
	out.Files = uint64(r.tree.Len())
	out.Bsize = blockSize
	out.Frsize = blockSize
	out.NameLen = nameMax
	return fuse.OK
}

func (r *rawFS) fillEntry(n fs.Node, out *fuse.EntryOut) {
	out.NodeId = n.Ino()
	out.EntryValid = forever
	out.AttrValid = forever
	r.fillAttr(n, &out.Attr)
}

func (r *rawFS) fillAttr(n fs.Node, out *fuse.Attr) {
	a := n.Attr()
	out.Ino = n.Ino()
	out.Size = uint64(a.Size)
	out.Blocks = a.Blocks()
	// A time before 1970 travels as the two's complement.
	sec := uint64(a.ModSec)
	out.Atime, out.Mtime, out.Ctime = sec, sec, sec
	out.Atimensec, out.Mtimensec, out.Ctimensec = a.ModNsec, a.ModNsec, a.ModNsec
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Uid, out.Gid = a.UID, a.GID
	if r.owners != nil {
		out.Uid, out.Gid = r.owners(a.UID, a.GID)
	}
	out.Rdev = rdev(a.Major, a.Minor)
	if r.deadDevices && out.Rdev != 0 { // 0 is dead, and a whiteout to an overlay
		out.Rdev = deadDevice
	}
	out.Blksize = blockSize
}

// deadDevice is a device number below those of drivers: opening it gives ENXIO.
const deadDevice = 1

// rdev returns a device number as the protocol has it: the kernel's 12 bits
// of major and 20 of minor.
func rdev(major, minor uint32) uint32 {
	return minor&0xff | major&0xfff<<8 | minor&0xfff00<<12
}
