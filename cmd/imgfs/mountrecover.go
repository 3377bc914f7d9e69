package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/memfile"
	"github.com/imgfs/imgfs/remote/registry/hosts"
)

// noRecoverFlag has a mount end with the process that serves it.
const noRecoverFlag = "no-recover"

// leastPatience is how long a mount is kept at least while nobody can serve it, however
// short a read is to wait: opening an image takes time.
const leastPatience = 10 * time.Second

// wantRecovery says how the mount of an image is to outlive this process, or why it does
// not. store and noStore are as for serve.
func (m *mounter) wantRecovery(e *env, name string, store *serve.Store, noStore error, mount *serve.Mount) error {
	switch {
	case m.noRecover:
		mount.NoRecovery = "turned off: --" + noRecoverFlag
		return nil
	case !m.detached && store == nil:
		mount.NoRecovery = noStore.Error()
		return nil
	}
	mount.Recovery = m.recovery(e, name)
	mount.Recovery.Store = store
	loc, err := remote.ParseLocation(name)
	if err != nil || loc.Transport != remote.TransportDocker {
		return nil // no credentials are asked for
	}
	mount.Recovery.Authfile, err = e.keepAuthfile()
	return err
}

// recovery is how a mount of an image outlives its server.
func (m *mounter) recovery(e *env, name string) *serve.Recovery {
	r := &serve.Recovery{Args: append(slices.Clone(m.successor), "--"+serve.SucceedFlag, "--", name), Words: m.words, Patience: max(e.network.readTimeout, leastPatience)}
	if e.network.readTimeout < 0 {
		r.Patience = -1
	}
	for what, text := range map[string]string{ownersFlag: m.owners.String(), directoriesFlag: m.directories.String()} {
		if text != "" {
			r.Shows += " " + what + "=" + text
		}
	}
	if m.provenance {
		r.Shows += " provenance"
	}
	if m.engine {
		r.Shows += " " + engineFlag
	}
	return r
}

// takeOver serves a mount whose server has died, or is to be replaced. args are those of
// the first server, and the directory.
func (m *mounter) takeOver(ctx context.Context, e *env, args []string) error {
	if len(args) != 2 {
		return cli.Usagef("mount: --%s: an image and a directory are needed", serve.SucceedFlag)
	}
	name, dir := args[0], args[1]
	e.shown.none = true
	m.opens(e)
	disk, failed := e.openCacheOr(true) // the mount outlives it
	r := m.recovery(e, name)
	s, err := serve.Succeed(e.Env, r, disk, dir)
	if err != nil {
		return err
	}
	if s.Over(ctx) {
		return nil
	}
	return m.serveAgain(ctx, e, name, r, s, disk, failed)
}

// resume goes on with the mount that the service manager has kept. It returns false if
// there is none of these arguments.
func (m *mounter) resume(ctx context.Context, e *env, store *serve.Store) (resumed bool, err error) {
	if !store.Came() {
		return false, nil
	}
	disk, failed := e.openCacheOr(true) // the mount outlives it
	r := m.recovery(e, "")
	r.Store = store
	s, name := serve.Resume(ctx, e.Env, r, disk)
	if s == nil {
		if failed == nil {
			disk.Close()
		}
		return false, nil
	}
	e.shown.none = true
	m.opens(e)
	err = m.serveAgain(ctx, e, name, r, s, disk, failed)
	if err != nil && ctx.Err() != nil {
		s.Stopped()
	}
	return true, err
}

// serveAgain serves a mount that another server has left. failed is why there is no cache.
func (m *mounter) serveAgain(ctx context.Context, e *env, name string, r *serve.Recovery, s *serve.Succession, disk *cache.Cache, failed error) error {
	defer s.Made().Remove()
	if failed != nil {
		return s.Failed(failed)
	}
	defer disk.Close()
	if kept := s.Authfile(); kept != nil {
		e.useAuthfile(kept)
	}
	mount := &serve.Mount{Env: e.Env, Options: m.options(name), Servers: &e.network.servers, Offline: e.offline, Begun: time.Now(),
		Grace: m.grace, Prefetch: m.prefetch, Recovery: r, Succession: s, Made: s.Made(), Cache: disk}
	if m.overlay != "" {
		mount.Options.AllowOther = false // who may read the view is its business
	}
	if !s.Opened() {
		return m.serveLater(ctx, e, name, mount)
	}
	e.adjust = func(opts *image.Options) { opts.Held = s.Held() }
	img, err := e.tree(ctx, name, disk)
	if err != nil {
		return s.Failed(err)
	}
	defer img.Close()
	mount.Image = img
	m.prepare(e, mount, img)
	return mount.Serve(ctx, e.life)
}

// authfileVar names the file with credentials, as the flag does.
const authfileVar = "REGISTRY_AUTH_FILE"

// keepAuthfile keeps what a pipe says that is named as the file with credentials, such as
// one of <(command): it can be read once. It returns nil if there is none such.
func (e *env) keepAuthfile() (*os.File, error) {
	path := string(e.authfile)
	if path == "" {
		path = os.Getenv(authfileVar)
	}
	text, pipe, err := hosts.ReadPipe(path)
	switch {
	case !pipe:
		return nil, nil
	case err != nil && e.authfile != "":
		return nil, fmt.Errorf("--authfile: %w", err)
	case err != nil:
		return nil, nil // as nothing was named, it is said when credentials are wanted
	}
	kept, err := memfile.New("imgfs-authfile")
	if err != nil {
		return nil, err
	}
	if _, err := kept.Write(text); err != nil {
		return nil, err
	}
	e.useAuthfile(kept)
	return kept, nil
}

// useAuthfile has an open file be the one with credentials, which the user has named.
func (e *env) useAuthfile(f *os.File) {
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if e.authfile != "" {
		e.authfile = path
	} else {
		_ = os.Setenv(authfileVar, path) // cannot fail
	}
}
