//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs/internal/journal"
)

// A Prepared is a server that is ready to go on with the mount of another one. It is for
// one goroutine.
type Prepared struct {
	a     answerer
	state keptState // as it was when it was prepared
}

// Prepare makes all ready to go on with a mount whose server has died, or is about to:
// nothing is changed, and nobody is served yet. tree is nil for a mount of
// [Target.Attach] that has not been shown. The error wraps [ErrChanged], and says what is
// not alike, if the tree has another identity than the one that was shown, or the kernel
// would be told something else than it was told. opts are those of the mount;
// Options.Kept is taken to be k.
func Prepare(ctx context.Context, k *Kept, tree *fs.Tree, opts *Options) (*Prepared, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	o := Options{}
	if opts != nil {
		o = *opts
	}
	o.Kept = k
	if err := k.read(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKept, err)
	}
	p := &Prepared{state: k.now()}
	if err := p.state.same(tree != nil, &o); err != nil {
		return nil, err
	}
	if err := p.prepare(tree, &o); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// same returns an error if it is another tree that is to be shown, or another way to be
// asked.
func (k *keptState) same(shown bool, o *Options) error {
	switch {
	case o.IOUring == On:
		return fmt.Errorf("%w: io_uring is to take its requests", ErrChanged)
	case k.Shown && !shown:
		return fmt.Errorf("%w: it has a tree already", ErrChanged)
	case !k.Shown && shown:
		return fmt.Errorf("%w: it has no tree yet", ErrChanged)
	case k.Shown && k.Identity != o.Identity:
		return fmt.Errorf("%w: the tree is %q, and was %q", ErrChanged, o.Identity, k.Identity)
	}
	return nil
}

// prepare makes what answers, and has it answer INIT.
func (p *Prepared) prepare(tree *fs.Tree, o *Options) error {
	early := tree
	if p.state.Early {
		early = nil // as it was when INIT was answered
	}
	raw := newRawFS(early, o)
	then := initReply(p.state.Reply) // older versions of imgfs have announced less
	raw.export, raw.idmapped = then.Flags64()&fuse.CAP_EXPORT_SUPPORT != 0, then.Flags64()&fuse.CAP_ALLOW_IDMAP != 0
	p.a = answerer{raw: raw, opts: o}
	if raw.plan.unprobed && p.state.Planned {
		raw.plan = passPlan{depth: p.state.Depth} // what there is now is no reason to stop
	}
	switch {
	case p.state.Planned && raw.plan.why != nil:
		return fmt.Errorf("%w: it had passthrough: %w", ErrChanged, raw.plan.why)
	case !p.state.Planned && raw.plan.why == nil:
		return fmt.Errorf("%w: it had no passthrough: %s", ErrChanged, p.state.Why)
	}
	if !p.state.Shown {
		p.a.held = newGate(raw)
	}
	can, err := initFlags(p.state.Init)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKept, err)
	}
	raw.negotiated(can)
	p.a.ps = fuse.NewProtocolServer(answering(raw, p.a.held), serverOptions(raw, o))
	b := takeReply(smallReply)
	defer b.give()
	if reply := b.reply(p.a.Answer(p.state.Init, b.head(), b.payload())); !bytes.Equal(reply, p.state.Reply) {
		return fmt.Errorf("%w: %s", ErrChanged, initDifference(reply, p.state.Reply))
	}
	if early == nil && tree != nil {
		raw.setTree(tree)
		if raw.plan.why == nil {
			raw.plan = planPassthrough(o, &raw.contents, raw.backings)
		}
	}
	if p.state.Shown {
		raw.plan.why = asError(p.state.Why) // none if there is passthrough
	}
	return nil
}

// initReply returns what a reply to INIT says.
func initReply(reply []byte) (out fuse.InitOut) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&out)), unsafe.Sizeof(out)), reply[min(outHeader, len(reply)):])
	return out
}

// initDifference says in what two replies to INIT differ.
func initDifference(now, then []byte) string {
	a, b := initReply(now), initReply(then)
	switch {
	case a.Flags64() != b.Flags64():
		return fmt.Sprintf("the capabilities are %#x, and were %#x", a.Flags64(), b.Flags64())
	case a.MaxStackDepth != b.MaxStackDepth:
		return fmt.Sprintf("file systems may be stacked %d deep, and %d deep before", a.MaxStackDepth, b.MaxStackDepth)
	case a.MaxWrite != b.MaxWrite || a.MaxReadAhead != b.MaxReadAhead || a.MaxPages != b.MaxPages:
		return fmt.Sprintf("requests have up to %d bytes, and had %d", a.MaxWrite, b.MaxWrite)
	}
	return fmt.Sprintf("the answer to INIT is %x, and was %x", now, then)
}

// Start goes on with the mount. The last server must have ended, and died is the signal that
// it ended by, 0 if it ended by itself, -1 if nobody knows, or [Replaced]. Requests are answered that it
// has left. The Kept is the server's from here on unless there is an error.
func (p *Prepared) Start(died int) (*Server, error) {
	defer p.Close()
	k, o, raw := p.a.opts.Kept, p.a.opts, p.a.raw
	// The last server has gone on meanwhile.
	if err := k.read(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKept, err)
	}
	st := k.now()
	if st.Shown != p.state.Shown || st.Identity != p.state.Identity || st.Passthrough != p.state.Passthrough {
		return nil, fmt.Errorf("%w: it got a tree meanwhile", ErrChanged)
	}
	device, _ := k.Files()
	c, err := newDeviceConn(int(device.Fd()), p.a, errRecovers)
	if err != nil {
		return nil, err
	}
	s := &Server{at: attached{st.Mount.entry(), st.Helper, st.Mount.Unique}, logf: o.logf, raw: raw, held: p.a.held, conn: c,
		done: make(chan struct{}), orphaned: make(chan struct{}), displaced: make(chan struct{}),
		readAhead: asError(st.ReadAhead), kept: k, wanted: true, planned: st.Planned, depth: st.Depth}
	if st.Passthrough {
		s.goOn(c)
	}
	c.refuse(st.Refused)
	s.paths = fastPaths(raw, c, s.readAhead)
	s.watching = newWatch(s, o)
	c.takeOver(died)
	go s.serve()
	return s, nil
}

// goOn goes on to pass reads through.
func (s *Server) goOn(c *deviceConn) {
	table, noted := journal.NewTable(s.kept.memory)
	pending := map[uint64]bool{}
	for _, page := range c.journal.Pending() {
		pending[page.Unique()] = true
	}
	pass := newPassthrough(c, s.raw.backings, table, s.logf)
	pass.restore(noted, pending)
	pass.sweep(s.raw.plan.probe)
	s.raw.passThrough(pass)
}

// Close gives up what was prepared, if it was not started. The Kept stays.
func (p *Prepared) Close() {
	if p.a.raw != nil {
		p.a.raw.plan.close()
	}
}
