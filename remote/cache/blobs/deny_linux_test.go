package blobs

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// deny has this process get an error for system calls, given as call=error, by a
// seccomp filter as sandboxes use them.
func deny(rules []string) error {
	calls := map[string]uint32{"flock": unix.SYS_FLOCK, "openat2": unix.SYS_OPENAT2, "fallocate": unix.SYS_FALLOCATE}
	errs := map[string]unix.Errno{"ENOLCK": unix.ENOLCK, "ENOSYS": unix.ENOSYS, "EOPNOTSUPP": unix.EOPNOTSUPP, "EPERM": unix.EPERM, "EBADF": unix.EBADF}
	const nr, arg1 = 0, 24 // in struct seccomp_data
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	equal := func(k uint32, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: no, K: k}
	}
	give := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	var filter []unix.SockFilter
	for _, rule := range rules {
		call, name, _ := strings.Cut(rule, "=")
		refuse := give(unix.SECCOMP_RET_ERRNO | uint32(errs[name]))
		if call == "ofd" { // locks of open file descriptions
			for _, cmd := range []uint32{unix.F_OFD_SETLK, unix.F_OFD_GETLK} {
				filter = append(filter, load(nr), equal(unix.SYS_FCNTL, 3), load(arg1), equal(cmd, 1), refuse)
			}
			continue
		}
		filter = append(filter, load(nr), equal(calls[call], 1), refuse)
	}
	filter = append(filter, give(unix.SECCOMP_RET_ALLOW))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if err != 0 {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}

// useWithout has a child use a cache directory without some system calls.
func useWithout(t *testing.T, dir string, rules ...string) string {
	t.Helper()
	cmd := child(t, "use without", dir)
	cmd.Args = append(cmd.Args, rules...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// Kernels, sandboxes and file systems that do not know a call cost something, and
// one warning at most.
func TestWithout(t *testing.T) {
	testenv.Slow(t)
	locks := "warning: cache directory DIR: its file system has no file locks"
	for _, tt := range []struct {
		rules string
		says  []string
	}{
		{"openat2=ENOSYS", nil},
		{"openat2=EPERM", nil},
		{"flock=ENOLCK", []string{locks}},
		{"flock=ENOSYS ofd=ENOSYS", []string{locks}},
		{"flock=EOPNOTSUPP ofd=ENOLCK openat2=ENOSYS", []string{locks}},
		{"flock=EBADF", []string{locks}},
		{"ofd=ENOLCK", nil},
		{"fallocate=EOPNOTSUPP", nil},
	} {
		t.Run(tt.rules, func(t *testing.T) {
			dir := t.TempDir() + "/cache"
			for range 2 { // new, and as another process has left it
				checkSaid(t, useWithout(t, dir, strings.Fields(tt.rules)...), dir, tt.says)
			}
			c := openCache(t, dir, nil)
			src := memBlob(cachetest.RandomBytes(5*cachetest.TestChunk, 900))
			if h := c.Holding(src.Digest()); h.Cached != src.Size() || h.Verified != meta.VerifiedWhole {
				t.Errorf("it has kept %+v", h)
			}
			cachetest.CheckTmp(t, dir)
		})
	}
}

// Without locks nothing is taken away from a file in its place, as a reader who
// opens it meanwhile would not notice: it goes as a whole. With locks some of its
// chunks go.
func TestPruneWithoutLocks(t *testing.T) {
	for _, rule := range []string{"flock=ENOLCK", "openat2=ENOSYS"} {
		dir := t.TempDir()
		c := openCache(t, dir, nil)
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(64*cachetest.TestChunk, 910)}
		cachetest.Fill(t, c.at("."), src, 0, 64, 1000)
		b, err := openBlobFile(c.Files(), c.Name(directory.Blobs, src.Digest()), blobfile.Layout{Size: src.Size(), Chunk: cachetest.TestChunk}, nil, blobUse)
		if err != nil {
			t.Fatal(err)
		}
		defer b.f.Close()
		cmd := child(t, "prune without", dir)
		cmd.Args = append(cmd.Args, strconv.FormatInt(cachetest.Usage(t, c)-10*cachetest.TestChunk, 10), rule)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v, %s", rule, err, out)
		}
		whole := true
		for k := range int64(64) {
			p := make([]byte, cachetest.TestChunk)
			if _, err := b.f.ReadAt(p, k*cachetest.TestChunk); err != nil || !chunksOf(src.Data, cachetest.TestChunk).Match(k, p) {
				whole = false
			}
		}
		if b.current() {
			t.Errorf("%s: a reader does not notice that something has gone", rule)
		}
		if unlocked := strings.HasPrefix(rule, "flock"); whole != unlocked || cachetest.Exists(cachetest.BlobPath(dir, src)) == unlocked {
			t.Errorf("%s: the open file is whole: %v; there is one with its name: %v", rule, whole, cachetest.Exists(cachetest.BlobPath(dir, src)))
		}
	}
}
