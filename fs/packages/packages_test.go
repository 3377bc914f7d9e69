package packages

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
)

// A stream is a layer in memory.
type stream []byte

func (s stream) ReadFileAt(ctx context.Context, p []byte, off, _ int64) (int, error) {
	if off > int64(len(s)) {
		return 0, io.EOF
	}
	n := copy(p, s[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, ctx.Err()
}

// treeOf returns a tree of one layer.
func treeOf(t testing.TB, members ...layertest.Member) *fs.Tree {
	t.Helper()
	var content stream
	var entries []layerindex.Entry
	for _, m := range members {
		e := m.Entry
		if e.Type == layerindex.TypeReg {
			e.Off = int64(len(content))
		}
		content = append(content, m.Data...)
		entries = append(entries, e)
	}
	tree, err := fs.Merge(t.Context(), []fs.Layer{{Name: "layer", Content: fs.StreamContent(content), Entries: func(yield func(*layerindex.Entry) bool) {
		for _, e := range entries {
			if !yield(&e) {
				return
			}
		}
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func read(t testing.TB, members ...layertest.Member) []Database {
	t.Helper()
	all, err := Read(t.Context(), treeOf(t, members...))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// text writes databases for comparison.
func text(all []Database) string {
	var b strings.Builder
	for _, db := range all {
		fmt.Fprintf(&b, "%s %s:", db.Kind, db.Path)
		for _, p := range db.Packages {
			fmt.Fprintf(&b, " %s=%s/%s", p.Name, p.Version, p.Arch)
		}
		if db.Err != nil {
			fmt.Fprintf(&b, " ERROR %v", db.Err)
		}
		b.WriteString("\n")
	}
	return b.String()
}

const status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.0-1\nDescription: x\n y: z\n .\n\n" +
	"Package: a\nStatus: hold ok installed\nArchitecture: i386\nVersion: 1:2.0-1\n\n\n" +
	"Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 3\n\n" +
	"Package: half\nStatus: install ok triggers-pending\nArchitecture: all\nVersion: 4~rc1"

func TestRead(t *testing.T) {
	file, dir, link := layertest.File, layertest.Dir, layertest.Symlink
	for _, c := range []struct {
		name    string
		members []layertest.Member
		want    string
	}{
		{"nothing", nil, ""},
		{"a file on the way", []layertest.Member{file("var", "")}, ""},
		{"dpkg", []layertest.Member{file("var/lib/dpkg/status", status)}, "dpkg /var/lib/dpkg/status: a=1:2.0-1/amd64 a=1:2.0-1/i386 half=4~rc1/all\n"},
		{"CRLF and case", []layertest.Member{file("var/lib/dpkg/status", "package:a\r\nVERSION: 1\r\nStatus: install ok installed\r\n\r\n")}, "dpkg /var/lib/dpkg/status: a=1/\n"},
		{"distroless", []layertest.Member{
			dir("var/lib/dpkg/status.d/"), file("var/lib/dpkg/status.d/b", "Package: b\nVersion: 1\nArchitecture: all\n"),
			file("var/lib/dpkg/status.d/b.md5sums", "0  x\n"), file("var/lib/dpkg/status.d/a", "Package: a\nVersion: 2\n"),
		}, "dpkg /var/lib/dpkg/status.d: a=2/ b=1/all\n"},
		{"long lines", []layertest.Member{file("var/lib/dpkg/status", "Package: a\nX: "+strings.Repeat("Package: b", 1<<16)+"\nVersion: 1\nStatus: install ok installed\n")}, "dpkg /var/lib/dpkg/status: a=1/\n"},
		{"apk", []layertest.Member{file("lib/apk/db/installed", "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\nR:a\n\nP:b\nV:2\n\n")}, "apk /lib/apk/db/installed: b=2/ musl=1.2.5-r0/x86_64\n"},
		{"one apk under two names", []layertest.Member{link("lib", "usr/lib"), file("usr/lib/apk/db/installed", "P:b\nV:2\n")}, "apk /lib/apk/db/installed: b=2/\n"},

		{"no status", []layertest.Member{file("var/lib/dpkg/status", "Package: a\nVersion: 1\n\n")}, "dpkg /var/lib/dpkg/status: ERROR line 3: damaged package database: the package a has no valid Status\n"},
		{"no name", []layertest.Member{file("var/lib/dpkg/status", "Version: 1\n")}, "dpkg /var/lib/dpkg/status: ERROR damaged package database: no Package in the stanza that ends here\n"},
		{"binary", []layertest.Member{file("var/lib/dpkg/status", "\x00\x01\n")}, "dpkg /var/lib/dpkg/status: ERROR line 1: damaged package database: no field\n"},
		{"in a status.d", []layertest.Member{file("var/lib/dpkg/status.d/b", " x")}, "dpkg /var/lib/dpkg/status.d: ERROR b: line 1: damaged package database: a line that goes on from nothing\n"},
		{"a directory", []layertest.Member{dir("var/lib/dpkg/status/")}, "dpkg /var/lib/dpkg/status: ERROR damaged package database: not a regular file\n"},
		{"a loop", []layertest.Member{link("lib/apk/db/installed", "installed")}, "apk /lib/apk/db/installed: ERROR too many levels of symbolic links\n"},
		{"damaged apk beside dpkg", []layertest.Member{file("lib/apk/db/installed", "V:1\n\n"), file("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\n")},
			"dpkg /var/lib/dpkg/status: ERROR damaged package database: the package a has no Version\napk /lib/apk/db/installed: ERROR line 2: damaged package database: no name (P) or no version (V) in the package that ends here\n"},
		{"Berkeley DB", []layertest.Member{file("var/lib/rpm/Packages", "x")}, "rpm /var/lib/rpm/Packages: ERROR format not supported: rpm's database in Berkeley DB, as before rpm 4.16\n"},
		{"no SQLite", []layertest.Member{file("var/lib/rpm/rpmdb.sqlite", strings.Repeat("x", 5000))}, "rpm /var/lib/rpm/rpmdb.sqlite: ERROR damaged package database: sqlite3: file is not a database\n"},
		{"no ndb", []layertest.Member{file("var/lib/rpm/Packages.db", strings.Repeat("x", 5000))}, "rpm /var/lib/rpm/Packages.db: ERROR damaged package database: no header of ndb\n"},
		{"an empty ndb", []layertest.Member{file("var/lib/rpm/Packages.db", "")}, "rpm /var/lib/rpm/Packages.db: ERROR damaged package database: it ends before byte 32\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := text(read(t, c.members...)); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

// TestTooLarge: a size is a stranger's claim, and nothing is read for it.
func TestTooLarge(t *testing.T) {
	for _, p := range places {
		if strings.HasSuffix(p.path, "status.d") || strings.HasSuffix(p.path, "Packages") {
			continue
		}
		m := layertest.File(p.path[1:], "")
		m.Size = MaxSize + 1
		if all := read(t, m); len(all) != 1 || !errors.Is(all[0].Err, ErrTooLarge) {
			t.Errorf("%s: got %v", p.path, text(all))
		}
	}
}

func TestCompare(t *testing.T) {
	p := func(text string) (all []Package) {
		for _, word := range strings.Fields(text) {
			name, rest, _ := strings.Cut(word, "=")
			version, arch, _ := strings.Cut(rest, "/")
			all = append(all, Package{name, version, arch})
		}
		return all
	}
	for _, c := range []struct {
		kind           Kind
		old, new, want string
	}{
		{Dpkg, "a=1 b=1 c=1:1", "b=1~1 c=1:1 d=2", "removed a 1; downgraded b 1 1~1; added d 2"},
		{Dpkg, "a=1/amd64 a=1/i386", "a=2/amd64 a=1/i386", "upgraded a 1 2"},
		{Dpkg, "a=1/amd64 a=1/i386", "a=2/i386 a=2/amd64", "upgraded a 1 2; upgraded a 1 2"},
		{Dpkg, "a=1/all", "a=1/amd64", "changed a 1 1"},
		{Dpkg, "a=1/all", "a=1", "changed a 1 1"},
		{Dpkg, "a=not_a_version", "a=1", "changed a not_a_version 1"},
		{RPM, "kernel=1-1/x kernel=1-2/x kernel=1-3/x", "kernel=1-2/x kernel=1-3/x kernel=1-4/x", "upgraded kernel 1-1 1-4"},
		{RPM, "kernel=1-1/x kernel=1-2/x", "kernel=1-3/x", "removed kernel 1-1; removed kernel 1-2; added kernel 1-3"},
		{RPM, "k=1-1 k=1-1", "k=1-1", "removed k 1-1"},
		{RPM, "a=1-1 b=2:1-1 c=1~rc-1 d=1^a-1", "a=1:0-1 b=1:9-1 c=1-1 d=1-1", "upgraded a 1-1 1:0-1; downgraded b 2:1-1 1:9-1; upgraded c 1~rc-1 1-1; downgraded d 1^a-1 1-1"},
		{APK, "a=1.10-r0 b=1_rc1 c=1.05 d=1a e=1_p1 f=1-r2", "a=1.9-r1 b=1 c=1.1 d=1b e=1 f=1-r10",
			"downgraded a 1.10-r0 1.9-r1; upgraded b 1_rc1 1; upgraded c 1.05 1.1; upgraded d 1a 1b; downgraded e 1_p1 1; upgraded f 1-r2 1-r10"},
		{APK, "", "", ""},
	} {
		var got []string
		for _, change := range Compare(c.kind, p(c.old), p(c.new)) {
			versions := strings.Fields(change.Old.Version + " " + change.New.Version)
			got = append(got, fmt.Sprintf("%s %s %s", change.Kind, change.Name, strings.Join(versions, " ")))
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%s, %q to %q:\ngot  %s\nwant %s", c.kind, c.old, c.new, text, c.want)
		}
	}
}

// TestVersions compares versions that stand in order with each other, and strange ones
// with all.
func TestVersions(t *testing.T) {
	for kind, ordered := range map[Kind]string{
		Dpkg: "0 0.9 1~~ 1~ 1 1-1 1-1+deb12u1 1-2 1.0 1.2 1.10 1:0",
		RPM:  "0-1 0.9-1 1~rc1-1 1-1 1-1.fc40 1-2 1.2-1 1.10-1 1:0-1",
		APK:  "0 0.9 1_alpha 1_alpha2 1_beta 1_pre1 1_rc1 1_rc2 1 1-r1 1_git2024 1_p1 1a 1b 1.0 1.0.1 1.02 1.1 1.9 1.10 2",
	} {
		versions := strings.Fields(ordered)
		for i, a := range versions {
			for j, b := range versions {
				if got, want := CompareVersions(kind, a, b), sign(i-j); got != want {
					t.Errorf("%s: %s against %s: got %d, want %d", kind, a, b, got, want)
				}
			}
			for _, strange := range []string{"", ":", "-", "-r", "_", ".", "~", "a:b:c-d-e", "\xff", "99999999999999999999999:1-1", strings.Repeat("1.", 1000)} {
				if CompareVersions(kind, a, strange) != -CompareVersions(kind, strange, a) {
					t.Errorf("%s: %s against %q depends on the order", kind, a, strange)
				}
			}
		}
	}
}

// header writes a header as rpm's databases have it.
func header(fields map[uint32]any) []byte {
	var index, data []byte
	tags := make([]uint32, 0, len(fields))
	for tag := range fields {
		tags = append(tags, tag)
	}
	slices.Sort(tags)
	for _, tag := range tags {
		for len(data)%4 != 0 {
			data = append(data, 0)
		}
		typ := uint32(typeString)
		off := uint32(len(data))
		switch v := fields[tag].(type) {
		case int:
			typ = typeInt32
			data = binary.BigEndian.AppendUint32(data, uint32(v))
		case string:
			data = append(append(data, v...), 0)
		}
		for _, n := range []uint32{tag, typ, off, 1} {
			index = binary.BigEndian.AppendUint32(index, n)
		}
	}
	h := binary.BigEndian.AppendUint32(nil, uint32(len(fields)))
	h = binary.BigEndian.AppendUint32(h, uint32(len(data)))
	return append(append(h, index...), data...)
}

// FuzzHeader: of any bytes comes a package that is named, or an error.
func FuzzHeader(f *testing.F) {
	good := header(map[uint32]any{tagName: "a", tagVersion: "1", tagRelease: "2", tagEpoch: 3, tagArch: "noarch", 5000: "x"})
	if p, err := parseHeader(good); err != nil || p != (Package{"a", "3:1-2", "noarch"}) {
		f.Fatalf("got %+v, %v", p, err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(header(map[uint32]any{tagName: 1, tagVersion: "1"}))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, blob []byte) {
		p, err := parseHeader(blob)
		if err == nil && (p.Name == "" || p.Version == "") || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("got %+v, %v", p, err)
		}
	})
}
