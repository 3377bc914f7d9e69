// Package engines builds what containers are run with, and snapshotters of others, from the
// Go modules below it, which pin them: newer ones than distributions have. What was built
// stays in the user's cache directory for the next run.
package engines

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// An engine is a module and what is built of it.
type engine struct {
	packages []string // programs; the last element of the path is the program's name
	tags     string
	cgo      bool // needs a C compiler
}

var all = map[string]engine{
	"containerd": {
		packages: []string{
			"github.com/containerd/containerd/v2/cmd/containerd",
			"github.com/containerd/containerd/v2/cmd/ctr",
			"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
		},
		tags: "no_btrfs,no_zfs,no_devmapper,no_aufs",
	},
	"podman": {packages: []string{"github.com/containers/podman/v5/cmd/podman"}, tags: "containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper", cgo: true},
	"crictl": {packages: []string{"sigs.k8s.io/cri-tools/cmd/crictl"}},
	"docker": {
		packages: []string{"github.com/moby/moby/v2/cmd/dockerd", "github.com/docker/cli/cmd/docker", "github.com/moby/buildkit/cmd/buildkitd", "github.com/moby/buildkit/cmd/buildctl"},
		tags:     "no_btrfs,no_zfs,exclude_graphdriver_btrfs,exclude_graphdriver_zfs",
	},
	"runc":   {packages: []string{"github.com/opencontainers/runc"}, tags: "runc_nodmz", cgo: true},
	"soci":   {packages: []string{"github.com/awslabs/soci-snapshotter/cmd/soci-snapshotter-grpc"}, cgo: true},
	"stargz": {packages: []string{"."}},
}

// ErrNotBuilt: a program cannot be built here, for want of a compiler or of a module. It
// comes wrapped.
var ErrNotBuilt = errors.New("not built")

// Build builds an engine, unless that was done before, and returns the directory of its
// programs. It must be called in the module of imgfs, and may be called by several processes
// at once.
func Build(ctx context.Context, name string) (string, error) {
	dir, err := place(ctx, name)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	kept := filepath.Dir(dir)
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(kept, "part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	if err := all[name].build(ctx, name, part); err != nil {
		return "", err
	}
	if err := os.Chmod(part, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(part, dir); err != nil {
		if _, missing := os.Stat(dir); missing == nil { // another process was faster
			return dir, nil
		}
		return "", err
	}
	return dir, nil
}

// Built is Build for what was built before; if it was not, the error wraps ErrNotBuilt.
func Built(ctx context.Context, name string) (string, error) {
	dir, err := place(ctx, name)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("%s of testdata/engines is %w", name, ErrNotBuilt)
	}
	return dir, nil
}

// place returns the directory that an engine is in when it was built.
func place(ctx context.Context, name string) (string, error) {
	if _, ok := all[name]; !ok {
		return "", fmt.Errorf("no engine is called %q", name)
	}
	source, err := sourceOf(ctx, moduleOf(name))
	if err != nil {
		return "", err
	}
	kept, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum, err := digestOf(source)
	if err != nil {
		return "", err
	}
	return filepath.Join(kept, "imgfs-engines", name+"-"+sum), nil
}

// moduleOf returns the directory below testdata of an engine's module.
func moduleOf(name string) string { return filepath.Join("engines", name) }

// sourceOf returns the directory of a module below testdata.
func sourceOf(ctx context.Context, module string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", errors.Join(ctx.Err(), fmt.Errorf("go env GOMOD: %w", err))
	}
	return filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "testdata", module), nil
}

// digestOf returns some digits that stand for the files of a module.
func digestOf(dir string) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(text))
		h.Write(text)
		return nil
	})
	return fmt.Sprintf("%.6x", h.Sum(nil)), err
}

// build builds the programs of the engine of a name into a directory.
func (e engine) build(ctx context.Context, name, dir string) error {
	cgo := "CGO_ENABLED=0"
	if e.cgo {
		cgo = "CGO_ENABLED=1"
	}
	_, err := GoBuild(ctx, moduleOf(name), []string{cgo}, append([]string{"-tags", e.tags, "-o", dir + "/"}, e.packages...)...)
	return err
}

// GoBuild runs go build in a module below testdata, and returns what that says. It must be
// called in the module of imgfs. The errors for want of a compiler or a module wrap
// ErrNotBuilt.
func GoBuild(ctx context.Context, module string, environment []string, args ...string) (said string, err error) {
	source, err := sourceOf(ctx, module)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...)
	cmd.Dir, cmd.Env = source, append(append(os.Environ(), "GOWORK=off"), environment...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		err = fmt.Errorf("%w: testdata/%s: %v: %s", ErrNotBuilt, module, err, lines[len(lines)-1])
	}
	return string(out), err
}
