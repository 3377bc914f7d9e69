package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Mount is an image to be mounted, its mountpoint, and how it is served.
type Mount struct {
	Env    *cli.Env
	Target *fusefs.Target
	Made   *Mountpoint // the directory, if it was made for this mount; else nil
	// Options are for Target.Mount. Serve sets the fields that depend on the image,
	// and those for messages.
	Options *fusefs.Options
	Image   *image.Image
	Servers *Servers // that the image is read from
	Offline bool     // they are not asked anything

	Begun    time.Time     // when the command began
	Parent   *Parent       // nil in the foreground
	Grace    time.Duration // how long a tree in use is served on after a signal
	Prefetch bool          // bring all of the image into the cache
	// Publish, if not nil, publishes the indexes of the image's layers, in the background
	// once the tree is mounted.
	Publish func(ctx context.Context) error
}

// Serve mounts and serves until the mount is gone. The end of ctx unmounts it.
func (m *Mount) Serve(ctx context.Context, life *Lifetime) error {
	// A write of a message fails when nobody reads it any more, and the process
	// goes on.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ended, ok := life.Serve()
	if !ok {
		return context.Cause(ctx)
	}
	defer ended()
	log, stats := newMountLog(m.Env.Stderr, m.Target.Dir(), m.Image.Resolved().Cache()), newStatsServer(m)
	opts := m.Options
	opts.Name, opts.Logf, opts.Control, opts.AlreadyReported = m.Image.Name(), log.printf, stats.control, m.Servers.alreadyReported
	opts.Backings, opts.Reads = backings{m.Image}, m.Image.Reads
	srv, err := m.Target.Mount(ctx, m.Image.Tree(), opts)
	if err != nil {
		return err
	}
	m.Target.Close() // the file system of the mountpoint must not stay busy
	stats.serving(srv.FastPaths())
	kept := srv.DropPrivileges()
	warnf := m.Env.Warnf
	if m.Parent != nil {
		warnf = log.printf
	}
	end := newCloser(srv, m.Target.Dir(), m.Grace, warnf)
	if err := end.meanwhile(ctx, func() error { return m.ready(log, kept) }); err != nil {
		return errors.Join(err, end.end())
	}
	go debug.FreeOSMemory() // serving needs less than mounting
	m.Servers.logTo(log.printf)
	if m.Prefetch {
		defer stats.beginPrefetch(ctx, m.Env)()
	}
	defer m.beginChecks(ctx)()
	if m.Publish != nil {
		defer beginPublish(ctx, m.Env, m.Publish)()
	}
	err = end.untilUnmounted(ctx)
	m.Made.Remove()
	ended()
	return err
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
	if os.Geteuid() == 0 && !m.Options.AllowOther {
		m.Env.Warnf("only root can read it; --allow-other lets others in")
	}
	if kept != nil {
		m.Env.Debugf("capabilities are kept that serving does not need: %v", kept)
	}
	line := m.summary()
	if m.Parent != nil {
		log.toFile()
		m.Env.SetOutput(func(line string) { log.printf("%s", line) })
		return m.Parent.release(line)
	}
	switch {
	case !m.Env.Quiet:
		return m.Env.Print(line + "\n")
	case m.Made == nil:
		return nil
	}
	_, err := io.WriteString(m.Env.Raw, line+"\n")
	return err
}

// summary returns the line for the user about the mount. If only what must be is to be
// said that is the directory, byte for byte.
func (m *Mount) summary() string {
	if m.Env.Quiet && m.Made != nil {
		return m.Made.Dir
	}
	img := m.Image.Resolved()
	s := img.Cache().Stats()
	return fmt.Sprintf("mounted %s on %s: %s, %d files, fetched %s in %.2f s",
		printable.Name(img.Name()), printable.Name(m.Target.Dir()), printable.Name(img.Top.Digest.String()),
		m.Image.Tree().Len(), show.Bytes(s.Fetched+s.Recorded+s.MetaFetched), time.Since(m.Begun).Seconds())
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
