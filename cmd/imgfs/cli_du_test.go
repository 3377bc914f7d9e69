//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestDuIsDuOfMount compares imgfs du with du(1) in a mount of the same image: every
// line, and the exit code.
func TestDuIsDuOfMount(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	need(t, "du")
	needRoot(t) // as the zoo has directories that are closed to others
	s := newSandbox(t)
	zoo := filepath.Join(s.dir, "zoo")
	if err := labimage.Zoo(zoo); err != nil {
		t.Fatal(err)
	}
	image := "oci:" + zoo
	dir := s.mount(image)
	for _, c := range []struct{ flags, paths, env string }{
		{"", ".", ""}, {"-a", ".", ""}, {"-s", ".", ""}, {"-h", ".", ""}, {"--si -a", ".", ""}, {"-d 0", ".", ""}, {"-d 1", ".", ""}, {"-a -d 1", ".", ""}, {"--max-depth=2", ".", ""},
		{"-b", ".", ""}, {"-ab", ".", ""}, {"--apparent-size", ".", ""}, {"-a --apparent-size -h", ".", ""}, {"-k -a", ".", ""}, {"-m -a", ".", ""}, {"-BM -a", ".", ""}, {"-B 512", ".", ""},
		{"-B1", ".", ""}, {"--block-size=KB", ".", ""}, {"-h -b", ".", ""}, {"-b -h", ".", ""}, {"-b -k", ".", ""},
		{"-S", ".", ""}, {"-S -a", ".", ""}, {"-s -S", ".", ""}, {"-S -d 1", ".", ""}, {"-S -c", ".", ""},
		{"-c", "content link", ""}, {"-c", "link content link/sub", ""}, {"", "link/sub link", ""}, {"", "link link/sub", ""}, {"-s", "link link", ""}, {"-a", "link/first link/second", ""}, {"-l", "link/first link/second link", ""},
		{"-al", "link", ""}, {"-a", "link", ""}, {"-sc", "content/one link/first link/sub", ""},
		{"--inodes", ".", ""}, {"--inodes -a", ".", ""}, {"--inodes -s -h", ".", ""}, {"--inodes -S", ".", ""}, {"--inodes -l -s", "link", ""}, {"--inodes -t 5", ".", ""},
		{"-t 8K", ".", ""}, {"-t -8K -a", ".", ""}, {"-a -t 1MB", ".", ""}, {"-a -b -t 3", "link", ""},
		{"-a --exclude=link", ".", ""}, {"-a --exclude=*e*", ".", ""}, {"-a --exclude=content/[a-m]*", ".", ""}, {"-a --exclude=li?k --exclude=name", ".", ""}, {"--exclude=.", ".", ""}, {"-a --exclude=[[:upper:]]*", "name", ""}, {"-a --exclude=[!a-z]*", "name", ""}, {"-a --exclude=gr?n*", "name", ""},
		{"-L -a", "link/dir link/up link/sub old", ""}, {"-L", "link/loop link/dangling link/dir old", ""}, {"-L -l -a --exclude=a*", "link", ""}, {"-L --exclude=a* --exclude=loop --exclude=dangling --exclude=dir", "link", ""}, {"-a -D", "link/up link/dir", ""}, {"-a", "link/up link/dir link/dir/", ""}, {"-aH", "link/dir", ""}, {"-a -L -l", "link/sub link/dir", ""}, {"-a -D", "link/dangling", ""}, {"-a -D", "link/loop", ""},
		{"-x", ".", ""}, {"-P -a", "link", ""}, {"-a0", ".", ""}, {"-0c", "link", ""},
		{"-a", "name/", ""}, {"-a", "name//", ""}, {"-a", "./name", ""}, {"", "nowhere link", ""}, {"-s", "content/text/", ""}, {"", "content/text", ""}, {"-d1", "kind sparse", ""}, {"-a", "kind", ""},
		{"-s", ".", "BLOCK_SIZE=1"}, {"-s", ".", "DU_BLOCK_SIZE=M"}, {"-s", ".", "DU_BLOCK_SIZE=human-readable"}, {"-s", ".", "POSIXLY_CORRECT=1"}, {"-s", ".", "BLOCKSIZE=2K"}, {"-sk", ".", "BLOCKSIZE=1"}, {"-s", ".", "BLOCK_SIZE=x"}, {"-s", ".", "DU_BLOCK_SIZE='K"},
	} {
		t.Run(strings.Join([]string{c.flags, c.paths, c.env}, " "), func(t *testing.T) {
			s := s.in(t)
			flags, paths := strings.Fields(c.flags), strings.Fields(c.paths)
			want := inTree(t, dir, strings.Fields(c.env), "du", append(flags, paths...)...)
			cmd := s.command(append(append(append([]string{"du"}, flags...), image), paths...)...)
			cmd.Env = append(cmd.Env, strings.Fields(c.env)...)
			got := s.finish(cmd)
			if got.stdout != want.stdout {
				t.Errorf("imgfs du:\n%s\ndu:\n%s", got.stdout, want.stdout)
			}
			if got.code != want.code || (got.stderr == "") != (want.stderr == "") {
				t.Errorf("got exit code %d, want %d; stderr\n%swant\n%s", got.code, want.code, got.stderr, want.stderr)
			}
		})
	}
}
