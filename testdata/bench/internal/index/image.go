package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"golang.org/x/sys/unix"
)

// indexImage measures the command imgfs index, and podman pull if that was
// asked for.
func (b *bench) indexImage() error {
	if b.node() == "" {
		b.add(figure{Name: "node", Unit: "s", Missing: "CORPORA is not set", Peer: "podman pull", WantRatio: 8})
		return nil
	}
	registry := registrytest.New(nil, nil)
	defer registry.Close()
	if err := registry.PushLayout(b.node(), "lab/node"); err != nil {
		return err
	}
	image := "docker://" + registry.Host() + "/lab/node:latest"
	imgfs, err := b.compileImgfs()
	if err != nil {
		return err
	}
	runs := min(b.runs, 3)
	var ours []usage
	for range runs {
		cache := filepath.Join(b.dir, "cache")
		b.logf("imgfs index %s", image)
		u, err := timeProgram(b.ctx, imgfs, "--cache-dir", cache, "--tls-verify=false", "index", image)
		if err := errors.Join(err, os.RemoveAll(cache)); err != nil {
			return err
		}
		ours = append(ours, u)
	}
	f := figure{Name: "node: wall time", Unit: "s", Ours: median(ours, func(u usage) float64 { return u.wall.Seconds() }), Peer: "podman pull", WantRatio: 8}
	if f.PeerValue, f.Missing, err = b.podmanPull(image); err != nil {
		return err
	}
	b.add(f)
	b.add(figure{Name: "node: CPU time", Unit: "s", Ours: median(ours, func(u usage) float64 { return u.cpu.Seconds() })})
	b.add(figure{Name: "node: memory of the process at its peak", Unit: "MB", Ours: median(ours, func(u usage) float64 { return float64(u.memory) / 1e6 }), WantMost: 150})
	return nil
}

func (b *bench) compileImgfs() (string, error) {
	root, err := b.moduleDir()
	if err != nil {
		return "", err
	}
	program := filepath.Join(b.dir, "imgfs")
	cmd := exec.CommandContext(b.ctx, "go", "build", "-o", program, "./cmd/imgfs")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	return program, cmd.Run()
}

// podmanPull returns the seconds that podman needs for an image, or why that
// is not known. Everything that it keeps is in the temporary directory.
func (b *bench) podmanPull(image string) (seconds float64, missing string, err error) {
	if !b.pull {
		return 0, "only with -pull", nil
	}
	podman, err := exec.LookPath("podman")
	if err != nil {
		return 0, "podman is not here", nil
	}
	b.logf("podman pull %s", image)
	dirs := []string{"--root", filepath.Join(b.dir, "podman"), "--runroot", filepath.Join(b.dir, "podman-run")}
	u, err := timeProgram(b.ctx, podman, append(dirs, "pull", "--quiet", "--tls-verify=false", image)...)
	// For a user other than root only podman can remove files of other owners.
	_, removeErr := timeProgram(context.WithoutCancel(b.ctx), podman, append(dirs, "rmi", "--all", "--force")...)
	// Podman leaves its storage mounted on itself, which is an error to unmount where it does not.
	_ = unix.Unmount(filepath.Join(b.dir, "podman", "overlay"), unix.MNT_DETACH)
	return u.wall.Seconds(), "", errors.Join(err, removeErr)
}

// usage is what one run of a program took.
type usage struct {
	sample
	memory int64 // bytes at the peak
}

func timeProgram(ctx context.Context, name string, args ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return usage{}, fmt.Errorf("%s %v: %w\n%s", filepath.Base(name), args, err, out)
	}
	u := usage{sample: sample{cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), wall: time.Since(begun)}}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.memory = r.Maxrss << 10
	}
	return u, nil
}
