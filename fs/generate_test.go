package fs_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
)

// A generator makes stacks of layers that collide as much as they can: few
// names, deep nesting, every type of entry, names that come back.
type generator struct {
	choose func(n int) int // 0 to n-1; decides everything
	// What the machine that extracts the layers can do:
	devices, trusted, xattrs, owners bool

	known  []string        // paths so far
	files  []string        // those of what was no directory
	leaves map[string]bool // those of this layer, which cannot be parents
	hidden []string        // reserved paths of this layer
	serial int
}

func (g *generator) stack() [][]member {
	var layers [][]member
	for range 1 + g.choose(4) {
		var l []member
		g.leaves, g.hidden = make(map[string]bool), nil
		for range g.choose(12) {
			l = append(l, g.member())
		}
		layers = append(layers, l)
	}
	return layers
}

// oneIn is true once in n times.
func (g *generator) oneIn(n int) bool { return g.choose(n) == n-1 }

func pick[E any](g *generator, list ...E) E { return list[g.choose(len(list))] }

func (g *generator) member() member {
	p := g.path()
	for tries := 0; tries < 5 && g.belowLeaf(p); tries++ {
		p = g.path()
	}
	if g.oneIn(150) {
		return g.refused(p)
	}
	var m member
	k := g.choose(100)
	if k >= 58 && k < 72 && (len(g.files) == 0 || slices.Contains(g.files, p)) {
		k = 30 // mostly there is no target, or it is the link itself
	}
	switch {
	case k < 22:
		m = dir(g.spell(p) + pick(g, "/", ""))
	case k < 45:
		g.serial++
		m = file(g.spell(p), fmt.Sprint("content ", g.serial))
	case k < 58:
		m = symlink(g.spell(p), g.target())
	case k < 72:
		m = link(g.spell(p), pick(g, "", "/", "./", "../")+g.oldFile())
	case k < 83:
		m = whiteout(g.spell(g.oldPath()))
		m.Type = pick(g, layerindex.TypeReg, layerindex.TypeDir)
	case k < 88:
		m = opaque(g.spell(g.oldPath()))
	case k < 92:
		m = file(g.reserved(p), "reserved")
		g.hidden = append(g.hidden, m.Name)
		m.Type = pick(g, layerindex.TypeReg, layerindex.TypeReg, layerindex.TypeDir, layerindex.TypeFifo)
	case k < 94:
		m = dir(pick(g, "./", "/", ".", "a/.."))
	case k < 96:
		m = fifo(g.spell(p))
	case k < 98 && g.devices:
		m = device(pick(g, layerindex.TypeChar, layerindex.TypeBlock), g.spell(p), pick[uint32](g, 0, 1, 2, 1<<12+1), pick[uint32](g, 0, 1, 1<<20-1, 1<<20+1))
	default:
		first := int64(g.choose(5000))
		m = sparse(g.spell(p), 10000, "abcde", []layerindex.Extent{{Off: first, Size: 2}, {Off: first + 2 + int64(g.choose(5))*900, Size: 3}})
	}
	if m.Type != layerindex.TypeReg {
		m.Data, m.Size, m.Sparse = "", 0, nil
	}
	g.attr(&m)
	g.known = append(g.known, p)
	if m.Type != layerindex.TypeDir && m.Type != layerindex.TypeSymlink && !strings.Contains(m.Name, ".wh.") {
		g.files = append(g.files, p)
		g.leaves[p] = true
	}
	return m
}

// belowLeaf says that a path is probably refused, because its parent is none.
func (g *generator) belowLeaf(p string) bool {
	for i, c := range p {
		if c == '/' && g.leaves[p[:i]] {
			return !g.oneIn(20)
		}
	}
	return false
}

// oldFile is a path that probably has a file.
func (g *generator) oldFile() string {
	if g.oneIn(20) {
		return g.oldPath()
	}
	if len(g.hidden) > 0 && g.oneIn(3) {
		return pick(g, g.hidden...)
	}
	return pick(g, g.files...)
}

// path makes a clean path, often one of before or a child of one.
func (g *generator) path() string {
	if len(g.known) > 0 && g.oneIn(2) {
		p := g.oldPath()
		if g.oneIn(2) {
			p += "/" + pick(g, "a", "b", "c")
		}
		return p
	}
	var parts []string
	for range 1 + g.choose(3) {
		name := pick(g, "a", "b", "c")
		if g.oneIn(40) {
			name = pick(g, ".wh.a", ".wh.", "\xff\n", "...")
		}
		parts = append(parts, name)
	}
	// A name that is a whiteout's is only a path if something is below it.
	if strings.HasPrefix(parts[len(parts)-1], ".wh.") {
		parts = append(parts, "a")
	}
	return strings.Join(parts, "/")
}

func (g *generator) oldPath() string {
	if len(g.known) == 0 || g.oneIn(8) {
		return pick(g, "a", "b", "c", "a/b", "a/a", "b/c")
	}
	return pick(g, g.known...)
}

// spell writes a path in one of the ways that mean the same.
func (g *generator) spell(p string) string {
	switch g.choose(12) {
	case 0:
		return "./" + p
	case 1:
		return "/" + p
	case 2:
		return "x/.././/" + p
	case 3:
		return strings.ReplaceAll(p, "/", "//")
	}
	return p
}

func (g *generator) target() string {
	return pick(g, "", "", "/", "../", "./", "../../") + g.oldPath() + pick(g, "", "", "/", "/..", "/.")
}

func (g *generator) reserved(p string) string {
	return pick(g, ".wh..wh.x", p+"/.wh..wh.x", ".wh..wh.plnk/"+p, p+"/.wh..wh..opq/y")
}

// refused makes a member that no tree has room for.
func (g *generator) refused(p string) member {
	return pick(g,
		file("../"+p, ""), file(p+"/.wh.", ""), file(".wh..", ""), dir(p+"/.wh.../"), symlink("/", "x"),
		link(p, p), link(p, "a/b/c/no"), link(p, "/"), symlink(p, ""), dir("a/../.."), fifo(p+"/"+strings.Repeat("n", 256)),
	)
}

func (g *generator) attr(m *member) {
	m.Mode = pick(g, m.Mode, 0o711, 0o4755, 0o2750, 0o1777, 0o700)
	if g.owners {
		m.UID, m.GID = pick[uint32](g, 0, 5, 4000000000, 1<<32-1), pick[uint32](g, 0, 6, 1<<32-1)
	}
	m.ModSec, m.ModNsec = pick[int64](g, 100, -1001, 1<<32), pick[uint32](g, 0, 500000001)
	if !g.xattrs || !g.oneIn(4) {
		return
	}
	names := []string{"user.a", "user.b"}
	if g.trusted {
		names = append(names, "trusted.a", "trusted.overlay.opaque")
	}
	for range 1 + g.choose(2) {
		m.Xattrs = append(m.Xattrs, layerindex.Xattr{Name: pick(g, names...), Value: pick(g, "y", "\x00\xff", "")})
	}
}

func stackString(stack [][]member) string {
	var b strings.Builder
	for i, l := range stack {
		fmt.Fprintf(&b, "L%d\n", i+1)
		for _, m := range l {
			fmt.Fprintf(&b, "\t%v\n", m)
		}
	}
	return b.String()
}
