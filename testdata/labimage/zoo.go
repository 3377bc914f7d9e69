package labimage

import (
	"archive/tar"
	"math/rand/v2"
	"strings"
	"time"
)

// Zoo makes dir an OCI layout, as Write does, of a small image of two layers
// that has every kind of entry and the odd ones among names, modes, owners,
// times and attributes. Only sparse files in GNU tar's old format are missing:
// umoci does not unpack them. Every directory has an entry, and hard links have the
// attributes of what they link to, so that any correct implementation makes
// the same tree of it. Unpacking it takes root. More layers lie on top.
func Zoo(dir string, more ...Layer) error {
	_, err := Write(dir, append([]Layer{animals, newcomers}, more...)...)
	return err
}

// An entry writes one entry.
type entry func(a *Archive) error

func writeAll(a *Archive, entries []entry) error {
	for _, e := range entries {
		if err := e(a); err != nil {
			return err
		}
	}
	return nil
}

func dir(name string, opts ...Option) entry {
	return func(a *Archive) error { return a.Dir(name, opts...) }
}

func file(name, content string, opts ...Option) entry {
	return func(a *Archive) error { return a.File(name, content, opts...) }
}

func symlink(name, target string, opts ...Option) entry {
	return func(a *Archive) error { return a.Symlink(name, target, opts...) }
}

func link(name, target string, opts ...Option) entry {
	return func(a *Archive) error { return a.Link(name, target, opts...) }
}

func fifo(name string, opts ...Option) entry {
	return func(a *Archive) error { return a.Fifo(name, opts...) }
}

func device(name string, kind byte, major, minor int64, opts ...Option) entry {
	return func(a *Archive) error { return a.Device(name, kind, major, minor, opts...) }
}

func whiteout(name string) entry {
	return func(a *Archive) error { return a.Whiteout(name) }
}

func opaque(dir string) entry {
	return func(a *Archive) error { return a.Opaque(dir) }
}

func sparse(name string, size int64, chunks ...Chunk) entry {
	return func(a *Archive) error { return a.Sparse(name, size, chunks...) }
}

// netBindService is security.capability with cap_net_bind_service=ep, as
// vfs_cap_data of linux/capability.h has it, revision 2.
const netBindService = "\x01\x00\x00\x02" + "\x00\x04\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"

// animals writes the first layer.
func animals(a *Archive) error {
	for _, entries := range [][]entry{contents(), kinds(), modes(), attributes(), names(), times(), links()} {
		if err := writeAll(a, entries); err != nil {
			return err
		}
	}
	return nil
}

func contents() []entry {
	return []entry{
		dir("content"),
		dir("content/empty-dir"),
		file("content/empty", ""),
		file("content/one", "1"),
		file("content/block", strings.Repeat("b", 512)),
		file("content/page", strings.Repeat("p", 4096)),
		file("content/zeros", strings.Repeat("\x00", 3<<20)),
		file("content/noise", noise(3<<20+17)),
		file("content/text", strings.Repeat("The quick brown fox jumps over the lazy dog.\n", 50_000)),
		dir("sparse"),
		sparse("sparse/pax", 10<<20, Chunk{4096, noise(5000)}, Chunk{5 << 20, "middle"}, Chunk{10<<20 - 3, "end"}),
		sparse("sparse/pax-hole", 5<<20, Chunk{5 << 20, ""}),
		sparse("sparse/pax-hole-at-end", 2<<20, Chunk{0, "start"}, Chunk{2 << 20, ""}),
	}
}

// noise returns n bytes that do not compress, the same each time.
func noise(n int) string {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func kinds() []entry {
	return []entry{
		dir("kind"),
		file("kind/file", "file\n"),
		dir("kind/dir"),
		symlink("kind/symlink", "file"),
		fifo("kind/fifo", Mode(0o622)),
		device("kind/null", tar.TypeChar, 1, 3, Mode(0o666)),
		device("kind/tty300", tar.TypeChar, 4, 300, Mode(0o620), Owner(0, 5)),
		device("kind/loop0", tar.TypeBlock, 7, 0, Mode(0o660), Owner(0, 6)),
		device("kind/sdzz", tar.TypeBlock, 259, 1<<19, Mode(0o660)),
	}
}

func modes() []entry {
	return []entry{
		dir("mode", Mode(0o711)),
		file("mode/setuid", "#!/bin/true\n", Mode(0o4755)),
		file("mode/setgid", "#!/bin/true\n", Mode(0o2755), Owner(0, 42)),
		file("mode/none", "unreadable\n", Mode(0)),
		file("mode/all", "all\n", Mode(0o7777)),
		dir("mode/sticky", Mode(0o1777)),
		dir("mode/setgid-dir", Mode(0o2775), Owner(1000, 1000)),
		dir("mode/closed-dir", Mode(0)),
		file("mode/closed-dir/file", "root only\n"),
		file("mode/owned", "1000:1001\n", Owner(1000, 1001)),
		file("mode/high-owner", "4000000000\n", Owner(4_000_000_000, 3_000_000_000)),
	}
}

func attributes() []entry {
	return []entry{
		dir("xattr", Xattr("user.on-dir", "yes")),
		file("xattr/text", "x", Xattr("user.text", "some text")),
		file("xattr/binary", "x", Xattr("user.binary", "\x00\x01\xfe\xff=\n")),
		file("xattr/many", "x", Xattr("user.a", "1"), Xattr("user.b", "2"), Xattr("user.c", strings.Repeat("3", 1000))),
		file("xattr/capability", "#!/bin/true\n", Mode(0o755), Xattr("security.capability", netBindService)),
	}
}

func names() []entry {
	deep := "name/" + strings.Repeat("d", 200) + "/" + strings.Repeat("e", 255)
	return []entry{
		dir("name"),
		file("name/"+strings.Repeat("l", 255), "longest name\n"),
		file("name/"+strings.Repeat("g", 150), "long name of GNU tar\n", GNU),
		dir("name/" + strings.Repeat("d", 200)),
		dir(deep),
		file(deep+"/file", "deep\n"),
		file("name/with space", "x"),
		file("name/new\nline", "x"),
		file("name/back\\slash", "x"),
		file("name/-dash", "x"),
		file("name/\"quotes'", "x"),
		file("name/...", "x"),
		file("name/.hidden", "x"),
		file("name/wh.file", "not a whiteout\n"),
		file("name/x.wh.file", "not a whiteout\n"),
		file("name/grün-日本-😀", "UTF-8\n"),
		file("name/gr\xfcn", "Latin-1\n", GNU),
		file("name/\xff\xfe\x80", "no encoding\n", GNU),
		symlink("name/symlink-to-latin-1", "gr\xfcn", GNU),
		symlink("name/long-target", strings.Repeat("t/", 1000)+"t"),
		file("./name//dots/../unclean", "name/unclean\n"),
	}
}

func times() []entry {
	at := func(sec, nsec int64) Option { return ModTime(time.Unix(sec, nsec)) }
	return []entry{
		dir("time", at(1_000_000_000, 123_456_789)),
		file("time/epoch", "x", at(0, 0)),
		file("time/nanosecond", "x", at(1_700_000_000, 1)),
		file("time/before-1970", "x", at(-1001, 500_000_000)),
		file("time/one-before-1970", "x", at(-1, 0)),
		file("time/after-2038", "x", at(1<<31+5, 0)),
		file("time/after-2106", "x", at(1<<32+5, 0)),
		symlink("time/symlink", "epoch", at(123_456_789, 987_654_321)),
	}
}

func links() []entry {
	stamp := ModTime(epoch.Add(time.Hour))
	return []entry{
		dir("link"),
		dir("link/sub"),
		file("link/first", "one inode of four names\n", stamp),
		link("link/second", "link/first", stamp),
		link("link/sub/third", "/link/first", stamp),
		link("link/fourth", "./link/second", stamp),
		symlink("link/absolute", "/link/first"),
		symlink("link/up", "../content/text"),
		symlink("link/above-the-root", "../../../../content/one"),
		symlink("link/dangling", "nowhere"),
		symlink("link/loop", "loop"),
		symlink("link/dir", "sub"),
		fifo("link/fifo", stamp),
		link("link/fifo-too", "link/fifo", stamp),
		dir("old"),
		file("old/a", "a\n"),
		file("old/b", "b\n"),
		dir("old/dir"),
		file("old/dir/c", "c\n"),
		dir("emptied"),
		file("emptied/a", "a\n"),
		dir("emptied/dir"),
		file("emptied/dir/b", "b\n"),
		dir("gone"),
		file("gone/a", "a\n"),
	}
}

// newcomers writes the second layer.
func newcomers(a *Archive) error {
	return writeAll(a, []entry{
		dir("emptied", Mode(0o750)),
		opaque("emptied"),
		file("emptied/new", "new\n"),
		whiteout("gone"),
		dir("kind"),
		whiteout("kind/loop0"),
		file("kind/fifo", "a file now\n"),
		dir("link"),
		whiteout("link/second"),
		dir("old", Owner(7, 8)),
		whiteout("old/dir"),
		symlink("old/a", "b"),
		whiteout("old/b"),
		dir("old/b"),
		file("old/b/inside", "b was a file\n"),
		dir("xattr", Xattr("user.on-dir", "changed")),
		file("xattr/text", "without attributes now\n"),
	})
}
