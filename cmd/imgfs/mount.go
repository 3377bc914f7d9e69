package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/blobcache"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

const mountUsage = `usage: imgfs mount [FLAGS] IMAGE DIR

Mounts the merged tree of an image on a directory, read-only. Returns when the
tree can be used; a process in the background serves it until it is unmounted
(imgfs umount DIR, fusermount3 -u DIR or umount DIR).

With --offline an image mounts of which the indexes are in the cache; what is not
there cannot be read. Without, an image that a registry cannot be asked about is
mounted as it was last seen, with a warning.

  -f, --foreground       serve in this process, until Ctrl-C or unmounting
      --allow-other      let other users in (needs root, or user_allow_other in /etc/fuse.conf)
      --prefetch         bring all of the image into the cache, while nobody reads
      --read-timeout T   how long a read waits if nothing comes (default 60s) before it fails with
                         EIO; the next one tries anew. 0: until it is killed
      --retries N        how often in a row a failed request is sent again (default 5)
      --max-requests N   how many requests a server has at a time (default 16)
      --provenance       list the attributes user.imgfs.layer, .digest and .offset, which say where
                         a file comes from; without it they are there for who asks by name
      --passthrough W    "on": the kernel reads cached files by itself; "off", or "auto" (default)
      --io-uring W       "on": requests come through io_uring; "off", or "auto" (default)

example:
  imgfs mount fedora:latest /mnt/fedora
`

// A mounter is imgfs mount.
type mounter struct {
	foreground bool
	allowOther bool
	prefetch   bool
	provenance bool
	detached   bool // this is the process in the background

	passthrough, ioURing choice
}

// A choice is the value of a flag for what makes a mount faster. What is "on"
// and cannot be had fails the mount; "auto" never does.
type choice fusefs.Choice

var choices = []string{fusefs.Auto: "auto", fusefs.On: "on", fusefs.Off: "off"}

func (c *choice) String() string { return choices[*c] }

// Type is for messages of pflag.
func (c *choice) Type() string { return "choice" }

// Set is called with what the user wrote.
func (c *choice) Set(s string) error {
	i := slices.Index(choices, s)
	if i < 0 {
		return errors.New("it is one of auto, on, off")
	}
	*c = choice(i)
	return nil
}

func mountCommand() command {
	return command{usage: mountUsage, setup: func(f *pflag.FlagSet) action {
		m := mounter{}
		f.BoolVarP(&m.foreground, "foreground", "f", false, "")
		f.BoolVar(&m.allowOther, "allow-other", false, "")
		f.BoolVar(&m.prefetch, "prefetch", false, "")
		f.BoolVar(&m.provenance, "provenance", false, "")
		f.Var(&m.passthrough, "passthrough", "")
		f.Var(&m.ioURing, "io-uring", "")
		f.BoolVar(&m.detached, detachedFlag, false, "")
		set := networkFlags(f)
		f.Lookup(detachedFlag).Hidden = true
		return func(ctx context.Context, e *env, args []string) error {
			if err := set(e); err != nil {
				return err
			}
			switch {
			case len(args) != 2:
				return usageError("mount: an image and a directory are needed")
			case m.prefetch && e.offline:
				return usageError("mount: --prefetch and --offline exclude each other")
			case m.foreground || m.detached:
				return m.serve(ctx, e, args[0], args[1])
			}
			return m.detach(ctx, e, args[0], args[1], f)
		}
	}}
}

func (m *mounter) options(img string) *fusefs.Options {
	return &fusefs.Options{Name: img, AllowOther: m.allowOther, Provenance: m.provenance,
		Passthrough: fusefs.Choice(m.passthrough), IOUring: fusefs.Choice(m.ioURing)}
}

// serve mounts the image and serves it until it is unmounted.
func (m *mounter) serve(ctx context.Context, e *env, name, dir string) error {
	begun := time.Now()
	var shell *parent
	if m.detached {
		shell, ctx = newParent(ctx)
	}
	opts := m.options(name)
	if err := fusefs.Check(dir, opts); err != nil {
		return err
	}
	cache, err := e.openCache()
	if err != nil {
		return err
	}
	defer cache.Close()
	if err := outside(dir, cache.Dir()); err != nil {
		return err
	}
	img, t, err := e.tree(ctx, name, cache)
	if err != nil {
		return err
	}
	defer t.Close()
	defer usedUntilNow(img, cache)
	if m.prefetch && isLocal(name) {
		e.warnf("%s is on this machine: there is nothing to fetch", img.Source.Name())
		m.prefetch = false
	}
	if dir, err = realPath(dir); err != nil {
		return err
	}
	log, tell := newMountLog(e, dir, cache), newTeller(e, img, t, dir, cache)
	opts.Name, opts.Logf, opts.Control, opts.Told = img.Source.Name(), log.printf, tell.control, e.network.told
	srv, err := fusefs.Mount(dir, t, opts)
	if err != nil {
		return err
	}
	tell.serving(srv.FastPaths())
	line := summary(img, t, dir, cache.Stats(), time.Since(begun))
	if shell != nil {
		log.toFile()
		e.sayTo(func(line string) { log.printf("%s", line) })
		err = shell.release(line)
	} else if !e.quiet {
		_, err = fmt.Fprintln(e.stdout, line)
	}
	if err != nil {
		return errors.Join(err, srv.Unmount())
	}
	go debug.FreeOSMemory() // what mounting took, and serving does not need
	e.network.tellTo(log.printf)
	if m.prefetch {
		defer tell.beginPrefetch(ctx, e)()
	}
	return untilUnmounted(ctx, srv)
}

// untilUnmounted serves until somebody unmounts, or ctx ends.
func untilUnmounted(ctx context.Context, srv *fusefs.Server) error {
	done := make(chan struct{})
	go func() {
		srv.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	if err := srv.Unmount(); err != nil {
		return err
	}
	<-done
	return nil
}

// outside refuses a mountpoint that the mount would have to be read through
// to serve it.
func outside(dir, cache string) error {
	for _, p := range []*string{&dir, &cache} {
		abs, err := filepath.EvalSymlinks(*p)
		if err == nil {
			abs, err = filepath.Abs(abs)
		}
		if err != nil {
			return err
		}
		*p = abs
	}
	if cache == dir || strings.HasPrefix(cache, strings.TrimSuffix(dir, "/")+"/") {
		return fmt.Errorf("%s holds the cache directory %s, which a mount there would hide", dir, cache)
	}
	return nil
}

// summary is the line that says what was mounted.
func summary(img *remote.Image, t *fs.Tree, dir string, s blobcache.Stats, took time.Duration) string {
	return fmt.Sprintf("mounted %s on %s: %s, %d files, fetched %s in %.2f s",
		printable.Name(img.Source.Name()), printable.Name(dir), printable.Name(img.Top.Digest.String()), t.Len(), bytesText(s.Fetched+s.Recorded+s.MetaFetched), took.Seconds())
}

const umountUsage = `usage: imgfs umount [-l] DIR...

Unmounts what imgfs mount has mounted.

  -l, --lazy  also if it is in use: gone from its place now, ended when unused

example:
  imgfs umount /mnt/fedora
`

func umountCommand() command {
	return command{usage: umountUsage, setup: func(f *pflag.FlagSet) action {
		lazy := f.BoolP("lazy", "l", false, "")
		return func(_ context.Context, e *env, args []string) error {
			if len(args) == 0 {
				return usageError("umount: no directory named")
			}
			unmount := fusefs.Unmount
			if *lazy {
				unmount = fusefs.UnmountLazy
			}
			return e.each(args, unmount)
		}
	}}
}
