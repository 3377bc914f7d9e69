package starts

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// A pulled is what a program takes with a peer that has to have all of the image first.
type pulled struct {
	took  time.Duration
	lacks string // why it is not known; "" if it is
}

// pull measures podman once, with an empty store: it returns for each program of an image how
// long pulling the image and running the program took.
func (b *bench) pull(l line, img *image) (all map[string]pulled, err error) {
	all = map[string]pulled{}
	if b.podman != "" || img.lacks != "" {
		for _, p := range img.programs {
			all[p.name] = pulled{lacks: b.podman}
		}
		return all, nil
	}
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
		all[p.name] = pulled{took: pull + run}
	}
	return all, nil
}
