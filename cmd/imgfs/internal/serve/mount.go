package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/overlayfs"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Mount is an image to be mounted, its mountpoint, and how it is served.
type Mount struct {
	Env    *cli.Env
	Target *fusefs.Target
	Made   *Mountpoint // the directory, if it was made for this mount; else nil
	// Overlay, if not nil, is a writable view of the mount, which the user is to see.
	Overlay *Overlay
	// Options are for Target.Mount. Serve sets the fields that depend on the image,
	// and those for messages.
	Options *fusefs.Options
	Image   *image.Image
	// Open, if not nil, opens the image, in place of Image. It is called when the
	// directory is mounted on: who looks there waits for it. Name is the image's until
	// then.
	Open    func(ctx context.Context) (*image.Image, error)
	Name    string
	Cache   *cache.Cache // has the log
	Servers *Servers     // that the image is read from
	Offline bool         // they are not asked anything

	Begun    time.Time     // when the command began
	Parent   *Parent       // nil in the foreground
	Grace    time.Duration // how long a tree in use is served on after a signal
	Prefetch bool          // bring all of the image into the cache
	// Forecaster, if not nil, says what is expected to be read.
	Forecaster *Forecaster
	// NewSession begins a session for this process when it has mounted.
	NewSession bool
	// Recovery has the mount outlive this process; nil does not, and NoRecovery says why.
	Recovery   *Recovery
	NoRecovery string
	// Succession, if not nil, is the mount that this process takes over, in place of Target.
	// The image may be open, or Open is.
	Succession *Succession
	// Publish, if not nil, publishes the indexes of the image's layers, in the background
	// once the tree is mounted.
	Publish func(ctx context.Context) error

	keeper *keeper
	opened atomic.Pointer[image.Image] // nil as long as it is not open
	view   *overlayfs.Mount            // nil if there is none
}

// Serve mounts and serves until the mount is gone. The end of ctx unmounts it.
func (m *Mount) Serve(ctx context.Context, life *Lifetime) error {
	// A write of a message fails when nobody reads it any more, and the process
	// goes on.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	over, ok := life.Serve()
	if !ok {
		return context.Cause(ctx)
	}
	defer over()
	log, stats, srv, err := m.begin(ctx)
	if err != nil {
		return err
	}
	ended := func() {
		m.keeper.done() // or there would be another server
		over()
	}
	defer ended()
	if m.Succession != nil {
		defer m.Overlay.giveUp()
	}
	// Before rights are given up: copying files up needs those to change owners.
	if err := m.mountView(ctx, srv); err != nil {
		return err
	}
	if m.NewSession {
		_, _ = syscall.Setsid() // or it has one
	}
	if m.Target != nil {
		m.Target.Close() // the file system of the mountpoint must not stay busy
	}
	warnf := m.Env.Warnf
	if m.background() {
		warnf = log.printf
	}
	end := newCloser(srv, m.view, m.dir(), m.Grace, warnf)
	end.left = m.left
	if m.Open != nil {
		if shown, err := m.openImage(ctx, end, log, stats, ended); !shown {
			return err
		}
	}
	stats.serving(srv.FastPaths())
	defer m.beginForecast(ctx, stats)()
	kept := srv.DropPrivileges()
	if err := end.meanwhile(ctx, func() error { return m.ready(log, kept) }); err != nil {
		return errors.Join(err, end.end())
	}
	go settleMemory()
	m.Servers.logTo(log.printf)
	if m.Prefetch {
		defer m.beginPrefetch(ctx, stats)()
	}
	defer m.beginChecks(ctx)()
	holding, stop := context.WithCancel(ctx)
	defer stop()
	go m.holdAnew(holding)
	if m.Publish != nil {
		defer m.beginPublish(ctx)()
	}
	err = end.untilUnmounted(ctx)
	m.Made.Remove()
	ended()
	return err
}

// begin mounts, or takes over what is mounted.
func (m *Mount) begin(ctx context.Context) (log *mountLog, stats *statsServer, srv *fusefs.Server, err error) {
	if s := m.Succession; s != nil {
		m.keeper, log = s.keeper, s.log
		m.Overlay, m.view = s.overlay, s.view
	} else {
		m.keeper, log = newKeeper(m), newMountLog(m.Env.Stderr, m.dir(), m.Cache)
	}
	stats = newStatsServer(m)
	stats.recovering(m.keeper, nil)
	srv, err = m.attach(ctx, log, stats)
	if err != nil {
		return log, stats, nil, err
	}
	if how := srv.Recovery(); m.keeper.on() && how != "on" {
		m.keeper.off(how)
	}
	stats.recovering(m.keeper, srv)
	return log, stats, srv, nil
}

// background reports whether there is nobody in front of a terminal.
func (m *Mount) background() bool { return m.Parent != nil || m.Succession != nil }

// attach mounts, with the tree if that is there already, or takes over what is mounted.
func (m *Mount) attach(ctx context.Context, log *mountLog, stats *statsServer) (*fusefs.Server, error) {
	opts := m.Options
	opts.Name, opts.Logf, opts.Control, opts.AlreadyReported = m.name(), log.printf, stats.control, m.Servers.alreadyReported
	opts.Backings, opts.Reads, opts.Locked = backings{m}, m.reads, m.Made != nil
	opts.Stacked, opts.Kept = m.Overlay != nil, m.keeper.kept
	var tree *fs.Tree
	if m.Image != nil {
		m.opened.Store(m.Image)
		tree, opts.Identity = m.Image.Tree(), m.identity()
	}
	switch {
	case m.Succession != nil:
		return m.Succession.takeOver(ctx, tree, opts)
	case tree == nil:
		return m.Target.Attach(ctx, opts)
	}
	return m.Target.Mount(ctx, tree, opts)
}

// identity says which tree is shown: the same to all servers of a mount.
func (m *Mount) identity() string {
	if m.Recovery == nil {
		return ""
	}
	return m.Image.Identity() + m.Recovery.Shows
}

// name is the image's name, as far as it is known.
func (m *Mount) name() string {
	if m.Succession != nil {
		return m.keeper.noted().Image // as the user named it, and not as it is opened again
	}
	if m.Image != nil {
		return m.Image.Name()
	}
	return m.Name
}

// reads is for fusefs.Options.Reads.
func (m *Mount) reads() int64 {
	if img := m.opened.Load(); img != nil {
		return img.Reads()
	}
	return 0
}

// checkAfter is how long nothing must be read and fetched before imgfs reads layers
// whole whose index nothing binds.
const checkAfter = 30 * time.Second

// beginChecks begins what indexes that others made give occasion to: it fetches what
// they say is read first, and checks them. stop ends that and waits for it.
func (m *Mount) beginChecks(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		if !m.Offline {
			if err := m.Image.FetchFirst(ctx); err != nil && ctx.Err() == nil {
				m.Env.Debugf("what is read first could not be fetched: %s", cli.Describe(err))
			}
		}
		m.Image.CheckIdle(ctx, checkAfter)
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// ready reports that the tree is mounted. kept is why the process still has
// capabilities that serving does not need; nil if it has none.
func (m *Mount) ready(log *mountLog, kept error) error {
	if kept != nil {
		m.Env.Debugf("capabilities are kept that serving does not need: %v", kept)
	}
	if m.Succession != nil {
		m.tellManager(m.summary())
	}
	if m.Succession != nil || m.Open != nil && m.Parent != nil {
		return nil // the user has long gone on
	}
	if m.Open == nil {
		m.keep()
	}
	m.warnOwner()
	line := m.summary()
	m.tellManager(line)
	return m.report(log, line)
}

// warnOwner says whom the mount does not let in.
func (m *Mount) warnOwner() {
	if os.Geteuid() == 0 && !m.Options.AllowOther && m.view == nil {
		m.Env.Warnf("only root can read it; --allow-other lets others in")
	}
}

// report tells the user that there is a mount.
func (m *Mount) report(log *mountLog, line string) error {
	if m.Parent != nil {
		if err := m.keeper.change(func(n *note) { n.Ready = true }); err != nil {
			return err
		}
		log.toFile()
		m.Env.About("") // the log names it anyway
		m.Env.SetOutput(func(line string) { log.printf("%s", line) })
		return m.Parent.release(line)
	}
	switch {
	case !m.Env.Quiet:
		return m.Env.Print(line + "\n")
	case !m.madeDir():
		return nil
	}
	_, err := io.WriteString(m.Env.Raw, line+"\n")
	return err
}

// summary returns the line for the user about the mount. If only what must be is to be
// said that is the directory, byte for byte.
func (m *Mount) summary() string {
	if m.Env.Quiet && m.madeDir() {
		return m.dir()
	}
	img := m.Image.Resolved()
	s := img.Cache().Stats()
	return fmt.Sprintf("mounted %s on %s: %s, %d files, fetched %s in %.2f s%s",
		printable.Name(img.Name()), printable.Name(m.dir()), printable.Name(img.Top.Digest.String()),
		m.Image.Tree().Len(), show.Bytes(s.Fetched+s.Recorded+s.MetaFetched), time.Since(m.Begun).Seconds(), m.written())
}

// CheckOutside refuses a mountpoint, a path without symlinks, that holds the
// cache directory: the mount would have to be read through itself.
func CheckOutside(dir, cacheDir string) error {
	abs, err := filepath.EvalSymlinks(cacheDir)
	if err == nil {
		cacheDir, err = filepath.Abs(abs)
	}
	if err != nil {
		return err
	}
	if cacheDir == dir || strings.HasPrefix(cacheDir, strings.TrimSuffix(dir, "/")+"/") {
		return fmt.Errorf("%s holds the cache directory %s, which a mount there would hide", dir, cacheDir)
	}
	return nil
}

// platformText writes a platform as --platform takes it.
func platformText(p ocispec.Platform) string {
	return strings.TrimSuffix(strings.Join([]string{p.OS, p.Architecture, p.Variant}, "/"), "/")
}
