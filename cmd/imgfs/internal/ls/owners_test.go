package ls

import (
	"maps"
	"strings"
	"testing"
)

func TestParseOwners(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       map[uint32]string
	}{
		{"passwd", "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1::/:\n", map[uint32]string{0: "root", 1: "bin"}},
		{"group", "root:x:0:\nadm:x:4:root,bin\nlast:x:7", map[uint32]string{0: "root", 4: "adm", 7: "last"}},
		{"the first of two", "root:x:0:\ntoor:x:0:\n", map[uint32]string{0: "root"}},
		{"the first of two, which is not shown", "to\x1bor:x:0:\nroot:x:0:\n", map[uint32]string{0: ""}},
		{"CRLF", "root:x:0:\r\nbin:x:1\r\n", map[uint32]string{0: "root", 1: "bin"}},
		{"no lines of names", "\n#comment\nroot\nroot:x\nroot:x:\n+::::::\nx:y:-1:\nx:y:0x1:\nx:y:4294967296:\nx:y: 1:\n", map[uint32]string{}},
		{"the largest", "nfsnobody:x:4294967295:\n", map[uint32]string{4294967295: "nfsnobody"}},
		{"other scripts", "jürgen:x:1000:\n", map[uint32]string{1000: "jürgen"}},
		{"names that are not shown", "a b:x:1:\n\u202ex:x:2:\nx\x00y:x:3:\n:x:4:\n1000:x:5:\n\xff:x:6:\n" + strings.Repeat("n", 33) + ":x:7:\nno\u00a0space:x:8:\n",
			map[uint32]string{1: "", 2: "", 3: "", 4: "", 5: "", 6: "", 7: "", 8: ""}},
		{"nothing", "", map[uint32]string{}},
	} {
		if got := parseOwners([]byte(c.text)).byID; !maps.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzParseOwners(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n\x1b:x:1:\n+::\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for id, name := range parseOwners(text).byID {
			if name != "" && !ownerName(name) {
				t.Errorf("%q: %d has the name %q", text, id, name)
			}
		}
	})
}
