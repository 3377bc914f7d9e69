package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Trees are images that imgfs itself reaches and mounts. Each mount is served by a process of
// its own, which goes on without this one.
type Trees struct {
	// Program is imgfs, and Flags are what all of its commands are given.
	Program string
	Flags   []string
	// Xattrs has mounts answer for attributes that no file has: see fusefs.Options.Xattrs.
	Xattrs bool
	// Layers returns the diff ids of an image that is named as for imgfs.
	Layers func(ctx context.Context, name string) ([]digest.Digest, error)
	// Release unmounts what is on a directory, in use or not; fusefs.ErrNotMounted is no
	// failure.
	Release func(ctx context.Context, dir string) error
	// NoIndexes has no indexes used but those that were made here; else those of index
	// repositories are used as well.
	NoIndexes bool
	// Credentials, if not nil, are told which images containerd wants snapshots of, and
	// programs ask for them at the CredentialServer of CredentialSocket.
	Credentials      *Credentials
	CredentialSocket string

	passed atomic.Int64
}

var _ snapshotter.Trees = (*Trees)(nil)

// NameOf returns the name of an image for imgfs. The transport keeps a client from naming
// anything but an image in a registry; a digest of the client's own is that of an image index
// which has the manifest.
func NameOf(img snapshotter.Image) string {
	ref, _, _ := strings.Cut(img.Ref, "@")
	return "docker://" + ref + "@" + img.Digest.String()
}

// DiffIDs implements snapshotter.Trees.
func (t *Trees) DiffIDs(ctx context.Context, img snapshotter.Image) ([]digest.Digest, error) {
	t.reached(img)
	return t.Layers(ctx, NameOf(img))
}

// MergedFlag has imgfs index find out whether the layers make a tree.
const MergedFlag = "merged"

// CredentialsFlag names the socket of a CredentialServer to commands of imgfs.
const CredentialsFlag = "credentials-of-pulls"

// reading returns the arguments of a command that reads an image. A chain is that of all
// images with its diff ids: what the publisher of one says of its layers must not be what
// containers of another one see, so no index is believed that comes with an image.
func (t *Trees) reading(args ...string) []string {
	all := []string{"--index-trust=repos"}
	if t.NoIndexes {
		all[0] = "--index-trust=local"
	}
	if t.Credentials != nil {
		all = append(all, "--"+CredentialsFlag+"="+t.CredentialSocket)
	}
	return append(all, args...)
}

func (t *Trees) reached(img snapshotter.Image) {
	if t.Credentials != nil {
		t.Credentials.Reached(img.Ref)
	}
}

// Index implements snapshotter.Trees.
func (t *Trees) Index(ctx context.Context, img snapshotter.Image) error {
	t.reached(img)
	rows := &firstBytes{limit: 4 << 20}
	if err := t.runTo(ctx, rows, "index", t.reading("--json", "--"+MergedFlag, "--", NameOf(img))...); err != nil {
		return err
	}
	var layers []struct {
		Fetched int64 `json:"fetched"`
	}
	if json.Unmarshal(rows.kept, &layers) == nil { // it is only counted
		for _, l := range layers {
			t.passed.Add(max(l.Fetched, 0))
		}
	}
	return nil
}

// Passed returns how many bytes came over the network for Index, as far as it has not
// failed.
func (t *Trees) Passed() int64 { return t.passed.Load() }

// Mount implements snapshotter.Trees.
func (t *Trees) Mount(ctx context.Context, img snapshotter.Image, n int, dir string) error {
	// Containers are of all users, and files have the rights in them that they have on a disk.
	args := t.reading("--allow-other", "--suid", "--dev", "--engine", "--layers="+strconv.Itoa(n))
	if t.Xattrs {
		args = append(args, "--xattrs")
	}
	err := t.run(ctx, "mount", append(args, "--", NameOf(img), dir)...)
	if err != nil {
		// A process that was ended may have mounted it.
		return errors.Join(err, t.Unmount(context.WithoutCancel(ctx), dir))
	}
	return nil
}

// maxStacked is how many mounts are taken from one directory.
const maxStacked = 100

// Unmount implements snapshotter.Trees.
func (t *Trees) Unmount(ctx context.Context, dir string) error {
	for range maxStacked {
		there, err := isMounted(dir)
		if err != nil || !there {
			return err
		}
		if err := t.Release(ctx, dir); err != nil && !errors.Is(err, fusefs.ErrNotMounted) {
			return err
		}
	}
	return fmt.Errorf("%s: something is mounted there again and again", dir)
}

// State implements snapshotter.Trees.
func (t *Trees) State(ctx context.Context, dir string) (snapshotter.State, error) {
	there, err := isMounted(dir)
	if err != nil || !there {
		return snapshotter.Absent, err
	}
	_, err = fusefs.Ask(ctx, func(context.Context) (st unix.Statfs_t, err error) {
		return st, unix.Statfs(dir, &st)
	})
	switch {
	case err == nil:
		return snapshotter.Live, nil
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ECONNABORTED):
		return snapshotter.Dead, nil
	}
	return snapshotter.Absent, fmt.Errorf("%s: %w", dir, err)
}

// isMounted reports whether an image is mounted on a directory. Nothing is asked of that.
func isMounted(dir string) (bool, error) {
	mounts, err := fusefs.Mounts()
	if err != nil {
		return false, err
	}
	for _, m := range mounts {
		if m.Dir == dir {
			return true, nil
		}
	}
	return false, nil
}

// run runs a command of imgfs to its end. The error is what it has printed.
func (t *Trees) run(ctx context.Context, command string, args ...string) error {
	return t.runTo(ctx, io.Discard, command, args...)
}

// runTo is run, and hands on what the command prints.
func (t *Trees) runTo(ctx context.Context, to io.Writer, command string, args ...string) error {
	words := append([]string{command, "--quiet"}, t.Flags...)
	cmd := exec.CommandContext(ctx, t.Program, append(words, args...)...)
	said := &lastBytes{limit: 16 << 10}
	cmd.Stdout, cmd.Stderr = to, said
	cmd.Env = ownEnvironment(os.Environ())
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("imgfs %s: %w", command, context.Cause(ctx))
	}
	if text := errorIn(string(said.kept)); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("imgfs %s: %w", command, err)
}

// ownEnvironment leaves out what the service manager means for this process alone.
func ownEnvironment(environment []string) (left []string) {
	for _, e := range environment {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE", "WATCHDOG_USEC", "WATCHDOG_PID":
		default:
			left = append(left, e)
		}
	}
	return left
}

// errorIn returns the error in what a command of imgfs has printed: the last line that is no
// hint.
func errorIn(text string) (found string) {
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "imgfs: ")
		if line != "" && !strings.HasPrefix(line, "hint: ") {
			found = line
		}
	}
	return found
}

// firstBytes keeps the beginning of what is written to it.
type firstBytes struct {
	limit int
	kept  []byte
}

// Write implements io.Writer.
func (b *firstBytes) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), b.limit-len(b.kept))]...)
	return len(p), nil
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	limit int
	kept  []byte
}

// Write implements io.Writer.
func (b *lastBytes) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p...)
	if extra := len(b.kept) - b.limit; extra > 0 {
		b.kept = append(b.kept[:0], b.kept[extra:]...)
	}
	return len(p), nil
}
