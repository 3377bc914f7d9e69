//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inTree runs a program in a directory, in the locale C.UTF-8, to its end.
func inTree(t *testing.T, dir string, env []string, name string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append([]string{"LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH")}, env...)
	return (&sandbox{t: t}).finish(cmd)
}

// newTextTree makes a tree on disk of what programs that read files have their cases for,
// and has GNU tar make a layer of it.
func newTextTree(t *testing.T) *realTree {
	t.Helper()
	need(t, "tar")
	r := &realTree{dir: filepath.Join(t.TempDir(), "tree"), cache: "--cache-dir=" + t.TempDir()}
	at := func(name string) string { return filepath.Join(r.dir, name) }
	for name, text := range map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nnobody:x:65534:\n",
		"etc/conf.d/a.conf": "# Root\nport = 80\n\nroot = /srv\nname = Rooted tree\n", "etc/conf.d/b.conf": "port = 443\nroots\n", "etc/conf.d/c.txt": "port\n",
		"text/empty": "", "text/newline": "\n", "text/newlines": "\n\n\nroot\n\n", "text/no-end": "first\nlast root", "text/one": "r",
		"text/crlf": "root\r\nport\r\n\r\n", "text/cr": "root\rport\r", "text/tabs": "\troot\t\n", "text/words": "root_a\nroot-a\naroot\nroot\n(root)\nROOT root\nrootroot root\nüroot\nrootü\n",
		"text/many": strings.Repeat("a line\nport\nroot\n", 3), "text/utf8": "grün root\n日本 root\nÄPFEL\näpfel\n", "text/long": strings.Repeat("x", 100_000) + "root" + strings.Repeat("y", 100_000) + "\nshort\n",
		"text/context": "1\n2\n3 root\n4\n5\n6\n7 root\n8 root\n9\n10\n11\n12\n13\n14\n15 root\n16\n",
		"binary/nul":   "root\x00root\nroot\n", "binary/nul-late": strings.Repeat("line\n", 20_000) + "root\n\x00root\n", "binary/nul-only": "\x00\x00", "binary/latin1": "gr\xfcn\nroot\n", "binary/latin1-root": "gr\xfcn root\nroot\n",
		"binary/match-first": "root\nroot\n\x00\n", "binary/utf16": "\xff\xfer\x00o\x00o\x00t\x00\n\x00",
		"excluded/.git/config": "root\n", "excluded/keep/root.c": "int root;\n", "excluded/keep/root.h": "extern int root;\n", "excluded/node/x.js": "root()\n", "dash/-v": "root\n",
	} {
		writeFile(t, at(name), text)
	}
	for _, name := range append(oddNames, "cr\r", "colon:1:root") {
		writeFile(t, filepath.Join(at("odd"), name), name+"\nroot\n")
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Link(at("etc/passwd"), at("text/hard")))
	for name, target := range map[string]string{"link-dir": "etc", "link-file": "text/many", "etc/dangling": "nowhere", "etc/loop": "loop", "text/up": "../etc"} {
		check(os.Symlink(target, at(name)))
	}
	sparse, err := os.Create(at("binary/sparse"))
	check(err)
	_, err = sparse.WriteAt([]byte("root\n"), 3<<20)
	check(err)
	check(sparse.Truncate(8 << 20))
	check(sparse.Close())
	check(unix.Mkfifo(at("etc/fifo"), 0o644))
	r.pack(t, "--sparse")
	return r
}
