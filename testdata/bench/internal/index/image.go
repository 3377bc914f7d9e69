package index

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

const noCorpora = "CORPORA is not set"

// indexImage measures the command imgfs index, and podman pull if that was
// asked for.
func (b *bench) indexImage() error {
	wall := figures.Figure{Name: "node: wall time", Unit: "s", Peer: "podman pull", AtLeast: 8}
	if wall.Missing = b.unableToIndex(); wall.Missing != "" {
		b.Add(wall)
		return nil
	}
	img, _, err := b.Node(b.Dir)
	if err != nil {
		return err
	}
	image, err := b.Push(img, "node:latest")
	if err != nil {
		return err
	}
	var seconds, cpu, memory []float64
	for range min(b.Runs, 3) {
		cache := filepath.Join(b.Dir, "cache")
		b.Logf("imgfs index %s", image)
		cmd := b.Command(b.Imgfs, "--cache-dir", cache, "--tls-verify=false", "index", image)
		begun := time.Now()
		if err := b.Finish(cmd); err != nil {
			return err
		}
		seconds = append(seconds, time.Since(begun).Seconds())
		cpu = append(cpu, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
		if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			memory = append(memory, float64(u.Maxrss<<10)/1e6)
		}
		if err := os.RemoveAll(cache); err != nil {
			return err
		}
	}
	wall.Ours = figures.Median(seconds)
	if wall.Theirs, wall.PeerMissing, err = b.podmanPull(image); err != nil {
		return err
	}
	b.Add(wall,
		figures.Figure{Name: "node: CPU time", Unit: "s", Ours: figures.Median(cpu)},
		figures.Figure{Name: "node: memory of the process at its peak", Unit: "MB", Ours: figures.Median(memory), AtMost: figures.Most(150)})
	return nil
}

// unableToIndex says why the command cannot be measured; "" if it can.
func (b *bench) unableToIndex() string {
	if b.Corpora == "" {
		return noCorpora
	}
	if _, missing := runner.LookRegistry(); missing != "" {
		return missing
	}
	return runner.Lacking("skopeo", b.Imgfs)
}

// podmanPull returns the seconds that podman needs for an image, or why that
// is not known. Everything that it keeps is in the temporary directory.
func (b *bench) podmanPull(image string) (seconds float64, missing string, err error) {
	if !b.opts.Pull {
		return 0, "only with -pull", nil
	}
	podman, err := exec.LookPath("podman")
	if err != nil {
		return 0, "podman is not here", nil
	}
	b.Logf("podman pull %s", image)
	dirs := []string{"--root", filepath.Join(b.Dir, "podman"), "--runroot", filepath.Join(b.Dir, "podman-run")}
	took, err := b.Timed(podman, append(dirs, "pull", "--quiet", "--tls-verify=false", "docker://"+image)...)
	// For a user other than root only podman can remove files of other owners.
	removeErr := exec.CommandContext(context.WithoutCancel(b.Ctx), podman, append(dirs, "rmi", "--all", "--force")...).Run()
	// Podman leaves its storage mounted on itself, which is an error to unmount where it does not.
	_ = runner.Detach(filepath.Join(b.Dir, "podman", "overlay"))
	return took.Seconds(), "", errors.Join(err, removeErr)
}
