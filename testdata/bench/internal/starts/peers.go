package starts

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// A pulled is what pulling an image and running a program of it takes with a peer.
type pulled struct {
	peer   string
	traced bool // the peer was given what the program reads, with the image
	took   time.Duration
	lacks  string // why it is not known; "" if it is
}

// peers measures all peers for the programs of an image, from nothing.
func (b *bench) peers(l line, img *image) (map[string][]pulled, error) {
	all := map[string][]pulled{}
	if img.lacks != "" {
		return all, nil
	}
	add := func(some map[string]pulled, err error) error {
		for name, p := range some {
			all[name] = append(all[name], p)
		}
		return err
	}
	if err := add(b.pull(l, img)); err != nil {
		return nil, fmt.Errorf("podman: %w", err)
	}
	for i := range snapshotters {
		if err := add(b.contain(l, img, &snapshotters[i])); err != nil {
			return nil, fmt.Errorf("%s: %w", snapshotters[i].name, err)
		}
	}
	return all, nil
}

// unpulled says of all programs of an image why a peer is not measured.
func (img *image) unpulled(peer, lacks string) map[string]pulled {
	all := map[string]pulled{}
	for _, p := range img.programs {
		all[p.name] = pulled{peer: peer, lacks: lacks}
	}
	return all
}

// pull measures podman once, with an empty store: it returns for each program of an image how
// long pulling the image and running the program took.
func (b *bench) pull(l line, img *image) (all map[string]pulled, err error) {
	if b.podman != "" {
		return img.unpulled("podman", b.podman), nil
	}
	all = map[string]pulled{}
	b.Logf("podman pull %s", img.name)
	b.meter.Slow(l.delay, l.mbps)
	defer b.meter.Slow(0, 0)
	store := []string{"--root", filepath.Join(b.Dir, "podman"), "--runroot", filepath.Join(b.Dir, "podman-run"), "--runtime=runc"}
	defer func() {
		// Without the bench's context, which may have ended.
		err = errors.Join(err, exec.CommandContext(context.WithoutCancel(b.Ctx), "podman", append(store, "rmi", "--all", "--force")...).Run())
		// Podman leaves its storage mounted on itself, which is an error to unmount where it does not.
		_ = runner.Detach(filepath.Join(b.Dir, "podman", "overlay"))
	}()
	pull, err := b.Timed("podman", append(store, "pull", "--quiet", "--tls-verify=false", "docker://"+img.now)...)
	if err != nil {
		return nil, err
	}
	// No more is asked of the machine than a container in a virtual machine may have.
	flags := append(store, "run", "--rm", "--pull=never", "--network=host", "--user=0", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000")
	for _, e := range environment {
		flags = append(flags, "--env", e)
	}
	for _, p := range img.programs {
		run, err := b.Timed("podman", append(append(flags, img.now), p.args...)...)
		if err != nil {
			return nil, err
		}
		b.Logf("%s, podman: pull %v, run %v", p.name, pull, run)
		all[p.name] = pulled{peer: "podman", took: pull + run}
	}
	return all, nil
}
