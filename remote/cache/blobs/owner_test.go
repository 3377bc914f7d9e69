package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// The users of these tests besides root, who have no names.
const (
	stranger = 54321
	neighbor = 54322
)

// A memBlob is a source of a blob, and of the manifest "{}".
type memBlob []byte

func (b memBlob) Digest() digest.Digest { return digest.FromBytes(b) }
func (b memBlob) Size() int64           { return int64(len(b)) }
func (b memBlob) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(b).ReadAt(p, off)
}

// A memSource has one manifest.
type memSource struct{ remote.Source }

func (memSource) Name() string { return "example.com/mem:1" }
func (memSource) Resolve(context.Context) (ocispec.Descriptor, error) {
	return ocispec.DescriptorEmptyJSON, nil
}
func (memSource) Fetch(context.Context, ocispec.Descriptor) ([]byte, error) { return []byte("{}"), nil }

// useAll is the child that does with a cache directory all that there is to be
// done. It prints why it is refused, or what it is warned of, and what went wrong.
func useAll(dir string) {
	warned := func(format string, args ...any) { fmt.Printf("warning: "+format+"\n", args...) }
	c, err := openTest(dir, &testOptions{Warnf: warned, Budget: 1 << 30})
	if err != nil {
		fmt.Println("refused:", err)
		if unfit := (*directory.DirError)(nil); errors.As(err, &unfit) {
			fmt.Println("hint:", unfit.Hint)
		}
		return
	}
	if c.ReadOnly() != nil {
		fmt.Println("read-only")
	}
	for range 2 {
		if err := useOnce(c); err != nil {
			fmt.Println("failed:", err)
		}
	}
	if err := c.Close(); err != nil {
		fmt.Println("failed:", err)
	}
}

func useOnce(c *testCache) error {
	ctx := context.Background()
	first, second := memBlob(cachetest.RandomBytes(5*cachetest.TestChunk, 900)), memBlob(cachetest.RandomBytes(7*cachetest.TestChunk, 901))
	release, err := c.Claim(ctx, first.Digest())
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	r, err := c.Record(first)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	r.Write(first)
	if err := r.Commit(chunksOf(first, cachetest.TestChunk)); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	release()
	for _, src := range []memBlob{first, second} {
		b, err := c.Blob(src, cutsOfSize(src, cachetest.TestChunk))
		if err != nil {
			return err
		}
		got := make([]byte, len(src))
		for range 2 {
			if _, err := b.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, src) {
				return fmt.Errorf("read: %v, right is %v", err, bytes.Equal(got, src))
			}
		}
	}
	c.Wait()
	src := c.Source(memSource{}, nil)
	desc, err := src.Resolve(ctx)
	if err != nil {
		return fmt.Errorf("resolve: %w", err)
	}
	if _, err := src.Fetch(ctx, desc); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	c.NoteImage(meta.Image{Name: "a", Manifest: desc.Digest})
	c.SetVerification(first.Digest(), meta.VerifiedWhole)
	return useContents(ctx, c)
}

func useContents(ctx context.Context, c *testCache) error {
	data := memBlob(cachetest.RandomBytes(2*cachetest.TestChunk, 902))
	x, err := c.Store(ctx, data.Digest(), data.Size(), bytes.NewReader(data))
	if err == nil {
		got, err := io.ReadAll(io.NewSectionReader(x.File(), 0, x.Size()))
		x.Close()
		if err != nil || !bytes.Equal(got, data) {
			return fmt.Errorf("content: %v, %d bytes", err, len(got))
		}
	}
	if f, err := c.OpenLog(1 << 20); err == nil {
		f.Close()
	}
	if _, err := c.Holdings(); err != nil {
		return fmt.Errorf("holdings: %w", err)
	}
	if _, err := c.Images(); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	if _, err := c.List(); err != nil {
		return fmt.Errorf("contents: %w", err)
	}
	if _, _, err := c.metaPart.Verify(ctx); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if _, err := c.Usage(); err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	if _, err := c.Prune(directory.PruneOptions{To: 1 << 30}); err != nil && c.ReadOnly() == nil {
		return fmt.Errorf("prune: %w", err)
	}
	return nil
}

// usersDir returns a directory that every user can reach, and the test binary in
// it.
func usersDir(t *testing.T) (dir, exe string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be several users")
	}
	dir, err := os.MkdirTemp("", "cache")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	testenv.OthersCanEnter(t, os.TempDir())
	exe = filepath.Join(dir, "test")
	if err := errors.Join(copyFile(exe, "/proc/self/exe"), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir, exe
}

// useAs has a user use a cache directory, and returns what there was to say.
func useAs(t *testing.T, exe, dir string, uid uint32) string {
	t.Helper()
	cmd := child(t, "use", dir)
	cmd.Path, cmd.Dir = exe, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// give makes a tree of files, or one file, a user's.
func give(t *testing.T, path string, uid int) {
	t.Helper()
	err := filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The cache directories that a user may name.
func TestWhoseDirectory(t *testing.T) {
	testenv.Slow(t)
	base, exe := usersDir(t)
	tests := []struct {
		name string
		make func(t *testing.T, dir string) // as root; the directory is a cache of the user's
		says []string                       // nothing: it is used without a word
	}{
		{"one's own", func(*testing.T, string) {}, nil},
		{"readable by all", func(t *testing.T, dir string) { chmod(t, dir, 0o755) }, nil},
		{"new below what cannot be written", func(t *testing.T, dir string) { remove(t, dir) },
			[]string{"refused: cache directory DIR is not writable: permission denied"}},
		{"root's, closed", func(t *testing.T, dir string) { give(t, dir, 0) },
			[]string{"refused: cache directory DIR belongs to root (uid 0), and imgfs runs as uid 54321", "hint: run imgfs as root"}},
		{"root's, empty", func(t *testing.T, dir string) { remove(t, dir); mkdir(t, dir, 0o755) },
			[]string{"refused: cache directory DIR belongs to root (uid 0), and imgfs runs as uid 54321"}},
		{"root's, to read", func(t *testing.T, dir string) { give(t, dir, 0); openToAll(t, dir) },
			[]string{"read-only", "warning: cache directory DIR belongs to root (uid 0), and imgfs runs as uid 54321; what cannot be stored is fetched"}},
		{"a neighbor's, to read", func(t *testing.T, dir string) { give(t, dir, neighbor); openToAll(t, dir) },
			[]string{"refused: cache directory DIR belongs to uid 54322, and imgfs runs as uid 54321", "hint: run imgfs as uid 54322"}},
		{"a neighbor's, to write", func(t *testing.T, dir string) { give(t, dir, neighbor); chmod(t, dir, 0o777) },
			[]string{"refused: cache directory DIR belongs to uid 54322"}},
		{"for all to write", func(t *testing.T, dir string) { chmod(t, dir, 0o777) },
			[]string{"refused: cache directory DIR may be written by other users (mode 0777)", "hint: chmod -R go-w DIR"}},
		{"like /tmp, root's", func(t *testing.T, dir string) { give(t, dir, 0); chmod(t, dir, os.ModeSticky|0o777) },
			[]string{"refused: cache directory DIR may be written by other users"}},
		{"for the group to write", func(t *testing.T, dir string) { chmod(t, dir, 0o770) },
			[]string{"refused: cache directory DIR may be written by other users (mode 0770)"}},
		{"a part for all to write", func(t *testing.T, dir string) { chmod(t, dir+"/meta/sha256", 0o777) },
			[]string{"refused: cache directory DIR: its meta/sha256 may be written by other users (mode 0777)", "hint: chmod -R go-w DIR"}},
		{"a part of a neighbor's", func(t *testing.T, dir string) { give(t, dir+"/indexes", neighbor) },
			[]string{"refused: cache directory DIR: its indexes belongs to uid 54322", "hint: sudo chown -R 54321 DIR"}},
		{"own, not to write", func(t *testing.T, dir string) { chmod(t, dir, 0o500) },
			[]string{"read-only", "warning: cache directory DIR is not writable: permission denied; what cannot"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(base, strings.NewReplacer(" ", "-", "/", "").Replace(tt.name))
			mkdir(t, dir, 0o700)
			give(t, dir, stranger)
			useAs(t, exe, dir, stranger)
			mkdir(t, dir+"/indexes", 0o700)
			give(t, dir+"/indexes", stranger)
			tt.make(t, dir)
			before := treeOf(t, dir)
			checkSaid(t, useAs(t, exe, dir, stranger), dir, tt.says)
			if len(tt.says) > 0 && treeOf(t, dir) != before {
				t.Errorf("it was changed:\n%s\nfrom\n%s", treeOf(t, dir), before)
			}
		})
	}
}

// checkSaid checks what a child said: lines that begin as given, and no others.
func checkSaid(t *testing.T, got, dir string, want []string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(got), "\n")
	for _, w := range want {
		w = strings.ReplaceAll(w, "DIR", dir)
		found := false
		for _, l := range lines {
			found = found || strings.HasPrefix(l, w)
		}
		if !found {
			t.Errorf("it does not say %q:\n%s", w, got)
		}
	}
	if len(want) == 0 && got != "" {
		t.Errorf("it says:\n%s", got)
	}
	if n := strings.Count(got, "warning: "); n > 1 || strings.Contains(got, "failed: ") {
		t.Errorf("%d warnings, or a failure:\n%s", n, got)
	}
}

// Root refuses the cache of a user, whatever is in it, and leaves it as it is.
func TestRootInAUsersDirectory(t *testing.T) {
	base, exe := usersDir(t)
	dir := filepath.Join(base, "cache")
	mkdir(t, dir, 0o700)
	give(t, dir, stranger)
	useAs(t, exe, dir, stranger)
	victim := filepath.Join(base, "victim")
	write(t, filepath.Join(victim, "1"), "precious")
	remove(t, dir+"/tmp")
	for link, to := range map[string]string{"tmp": victim, "imgfs.log": victim + "/log", "claims": victim} {
		remove(t, filepath.Join(dir, link))
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	give(t, dir, stranger)
	before, kept := treeOf(t, dir), treeOf(t, victim)
	checkSaid(t, useAs(t, exe, dir, 0), dir, []string{"refused: cache directory DIR belongs to uid 54321, and imgfs runs as root (uid 0)"})
	if treeOf(t, dir) != before || treeOf(t, victim) != kept {
		t.Errorf("root changed\n%s%s\nto\n%s%s", before, kept, treeOf(t, dir), treeOf(t, victim))
	}
}

// Root makes no cache, nor a directory on the way to one, in a user's directory.
func TestRootMakesNothingInAUsersDirectory(t *testing.T) {
	base, exe := usersDir(t)
	home := filepath.Join(base, "home")
	mkdir(t, home, 0o755)
	give(t, home, stranger)
	if err := os.Symlink(home, filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	for _, below := range []string{"home/.cache/imgfs", "home/imgfs", "link/.cache/imgfs"} {
		dir := base + "/" + below
		checkSaid(t, useAs(t, exe, dir, 0), dir, []string{"refused: cache directory DIR is not there, and ", "hint: run imgfs as uid 54321"})
		if entries, err := os.ReadDir(home); err != nil || len(entries) > 0 {
			t.Fatalf("%s: root made %v, %v", dir, entries, err)
		}
	}
	dir := filepath.Join(home, ".cache/imgfs")
	checkSaid(t, useAs(t, exe, dir, stranger), dir, nil)
	checkSaid(t, useAs(t, exe, base+"/of/root", 0), dir, nil)
}

// What root has left in a user's cache counts as missing, with one warning; the
// user's own goes on to be kept.
func TestLeftByRoot(t *testing.T) {
	testenv.Slow(t)
	base, exe := usersDir(t)
	for _, tt := range []struct {
		name, part string
		mode       fs.FileMode
		replaced   bool // the user may put something else in its place
	}{
		{"files", "files", 0, true},
		{"tmp", "tmp", 0o700, false},
		{"blobs", "blobs", 0o700, false},
		{"blobs/sha256", "blobs/sha256", 0o755, false},
		{"meta/sha256", "meta/sha256", 0o700, false},
		{"refs", "refs", 0o700, false},
		{"images", "images", 0o755, false},
		{"verified", "verified", 0o700, false},
		{"claims", "claims", 0o700, false},
		{"contents/sha256", "contents/sha256", 0o700, false},
		{"space", "space", 0, true},
		{"imgfs.log", "imgfs.log", 0, true},
	} {
		t.Run(strings.ReplaceAll(tt.name, "/", "-"), func(t *testing.T) {
			dir := filepath.Join(base, "of-"+strings.ReplaceAll(tt.name, "/", "-"))
			mkdir(t, dir, 0o700)
			give(t, dir, stranger)
			useAs(t, exe, dir, stranger)
			for _, path := range regular(t, dir) {
				if tt.part == "files" && directory.KindOf(path) != directory.KindSelf || strings.HasPrefix(path, tt.part) {
					give(t, filepath.Join(dir, path), 0)
				}
			}
			if tt.mode != 0 {
				give(t, filepath.Join(dir, tt.part), 0)
				chmod(t, filepath.Join(dir, tt.part), tt.mode)
			}
			want := []string{"warning: cache directory DIR: " + strings.TrimPrefix(tt.part, "files")}
			out := useAs(t, exe, dir, stranger)
			checkSaid(t, out, dir, want)
			if !strings.Contains(out, "belongs to root (uid 0)") || !strings.Contains(out, "sudo chown -R 54321 "+dir) {
				t.Errorf("it does not say whose it is and what to do:\n%s", out)
			}
			if again := useAs(t, exe, dir, stranger); tt.replaced && again != "" {
				t.Errorf("and again:\n%s", again)
			}
		})
	}
}

// A version file that root has left is made again.
func TestVersionLeftByRoot(t *testing.T) {
	base, exe := usersDir(t)
	dir := filepath.Join(base, "cache")
	mkdir(t, dir, 0o700)
	give(t, dir, stranger)
	useAs(t, exe, dir, stranger)
	give(t, dir+"/version", 0)
	checkSaid(t, useAs(t, exe, dir, stranger), dir, []string{"warning: cache directory DIR: version belongs to root"})
	checkSaid(t, useAs(t, exe, dir, stranger), dir, nil)
	if st, err := os.Stat(dir + "/version"); err != nil || st.Sys().(*syscall.Stat_t).Uid != stranger {
		t.Errorf("the version file is %+v, %v", st, err)
	}
}
