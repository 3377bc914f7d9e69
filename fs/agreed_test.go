package fs_test

import (
	"path"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
)

// agreed makes of a random stack one whose meaning nobody disputes, after the
// table of docs/semantics.md: what implementations see in different ways is
// left out, and what they make up of their own is written down. In each layer
//
//   - there is an entry for the root and for each directory on the way;
//   - no name comes twice, and a whiteout's name comes at most after it and
//     not as a directory;
//   - an opaque marker follows its directory: umoci changes the times of what
//     is between them;
//   - whiteouts name what a lower layer has, and not below or beside an
//     opaque marker; none of these is in the root;
//   - hard links name an entry of the layer, and have its attributes;
//   - sparse files are made of whole blocks;
//   - there are no names of whiteouts in the middle of a path, no character
//     device 0:0, no xattrs that belong to overlayfs, that Linux refuses, or
//     that are empty, which archive/tar takes for none, no owner 2^32-1, which
//     leaves a directory that is there the owner it has, and no device numbers
//     of more bits than Linux has.
//
// The same stack always gives the same.
func agreed(stack [][]member) [][]member {
	lower := map[string]layerindex.Type{}
	var layers [][]member
	for _, l := range stack {
		a := agreement{lower: lower, made: map[string]*member{}, gone: map[string]bool{}, opaque: map[string]bool{}, whites: whitesOf(l)}
		a.directory(".", member{Entry: layerindex.Entry{Mode: 0o755, UID: 0, GID: 0, ModSec: 100}})
		for _, m := range l {
			a.add(m)
		}
		layers = append(layers, a.layer)
		lower = a.result()
	}
	return layers
}

// An agreement is one layer as agreed makes it. Paths are clean.
type agreement struct {
	lower  map[string]layerindex.Type // what the layers below have
	layer  []member
	made   map[string]*member // what this layer has
	gone   map[string]bool    // what its whiteouts name
	opaque map[string]bool    // directories with a marker
	whites map[string]bool    // directories that whiteouts of the stack's layer are in
}

// whitesOf returns the directories in which a layer has whiteouts, so that no
// marker is put there.
func whitesOf(l []member) map[string]bool {
	dirs := map[string]bool{}
	for _, m := range l {
		if dir, base := path.Split(clean(m.Name)); strings.HasPrefix(base, ".wh.") && !strings.HasPrefix(base, ".wh..wh.") {
			dirs[path.Clean(dir)] = true
		}
	}
	return dirs
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (a *agreement) add(m member) {
	if m.UID == 1<<32-1 {
		m.UID = 0
	}
	if m.GID == 1<<32-1 {
		m.GID = 0
	}
	list, climbs := parts(m.Name)
	p := strings.Join(list, "/")
	if climbs || p == "" || strings.Contains(path.Dir(p), ".wh.") {
		return
	}
	for _, c := range list {
		if len(c) > 255 {
			return
		}
	}
	// GNU tar does not extract names with "..".
	if hasDotDot(m.Name) {
		m.Name = p
	}
	switch base := path.Base(p); {
	case base == ".wh..wh..opq":
		a.marker(path.Dir(p), m)
	case strings.HasPrefix(base, ".wh..wh."), base == ".wh.", base == ".wh..", base == ".wh...":
	case strings.HasPrefix(base, ".wh."):
		a.whiteout(path.Join(path.Dir(p), strings.TrimPrefix(base, ".wh.")), m)
	default:
		a.entry(p, m)
	}
}

func hasDotDot(name string) bool { return slices.Contains(strings.Split(name, "/"), "..") }

// below reports whether a layer's names include one at or below p.
func below(names map[string]*member, p string) bool {
	for q := range names {
		if q == p || strings.HasPrefix(q, p+"/") {
			return true
		}
	}
	return false
}

// covered reports whether one of the directories on the way to p is in set.
func covered(set map[string]bool, p string) bool {
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if set[d] {
			return true
		}
	}
	return false
}

func (a *agreement) marker(dir string, m member) {
	if dir == "." || a.opaque[dir] || a.whites[dir] || covered(a.gone, dir) || a.gone[dir] {
		return
	}
	for w := range a.gone {
		if strings.HasPrefix(w, dir+"/") {
			return
		}
	}
	if t, ok := a.made[dir]; ok && t.Type != layerindex.TypeDir || !a.parents(dir, m) {
		return
	}
	a.directory(dir, m)
	a.opaque[dir] = true
	at := slices.IndexFunc(a.layer, func(e member) bool { return clean(e.Name) == dir })
	a.layer = slices.Insert(a.layer, at+1, strip(m))
}

func (a *agreement) whiteout(p string, m member) {
	if _, ok := a.lower[p]; !ok || a.gone[p] || covered(a.gone, p) || below(a.made, p) ||
		a.opaque[path.Dir(p)] || covered(a.opaque, p) {
		return
	}
	for q := range a.gone {
		if strings.HasPrefix(q, p+"/") {
			return
		}
	}
	if !a.parents(p, m) {
		return
	}
	a.gone[p] = true
	a.layer = append(a.layer, strip(m))
}

func (a *agreement) entry(p string, m member) {
	if a.made[p] != nil || covered(a.gone, p) || a.gone[p] && m.Type == layerindex.TypeDir {
		return
	}
	switch m.Type {
	case layerindex.TypeLink:
		target := a.made[clean(m.Linkname)]
		if target == nil || target.Type == layerindex.TypeDir {
			return
		}
		if hasDotDot(m.Linkname) {
			m.Linkname = clean(m.Linkname)
		}
		m.Mode, m.UID, m.GID, m.ModSec, m.ModNsec, m.Xattrs = target.Mode, target.UID, target.GID, target.ModSec, target.ModNsec, target.Xattrs
	case layerindex.TypeSymlink:
		if m.Linkname == "" {
			return
		}
	case layerindex.TypeChar, layerindex.TypeBlock:
		m.Major, m.Minor = m.Major&0xfff, m.Minor&0xfffff // GNU tar refuses others
		if m.Type == layerindex.TypeChar && m.Major == 0 && m.Minor == 0 {
			m.Minor = 1
		}
	}
	if !a.parents(p, m) {
		return
	}
	m = inBlocks(strip(m))
	a.layer = append(a.layer, m)
	if m.Type == layerindex.TypeLink {
		m.Type = a.made[clean(m.Linkname)].Type // for links to it
	}
	a.made[p] = &m
}

// strip leaves the xattrs that all keep.
func strip(m member) member {
	var kept []layerindex.Xattr
	for _, x := range m.Xattrs {
		isFile := m.Type == layerindex.TypeReg || m.Type == layerindex.TypeDir
		if x.Value != "" && !strings.HasPrefix(x.Name, "trusted.overlay.") && (isFile || m.Type == layerindex.TypeLink) {
			kept = append(kept, x)
		}
	}
	m.Xattrs = kept
	return m
}

// inBlocks has the extents of a sparse file fill blocks, as GNU tar writes
// them: it reads each from the start of a block, and archive/tar from the end
// of the one before.
func inBlocks(m member) member {
	if m.Sparse == nil {
		return m
	}
	var extents []layerindex.Extent
	data, rest := "", m.Data
	for _, x := range m.Sparse {
		part := rest[:x.Size]
		rest = rest[x.Size:]
		off := x.Off &^ 511
		if n := len(extents); n == 0 || extents[n-1].Off < off {
			extents = append(extents, layerindex.Extent{Off: off, Size: 512})
			data += part + string(make([]byte, -len(part)&511))
		}
	}
	m.Sparse, m.Data = extents, data
	return m
}

// parents has the directories on the way to p in the layer, or reports that
// this is not possible.
func (a *agreement) parents(p string, m member) bool {
	var dirs []string
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if t := a.made[d]; a.gone[d] || t != nil && t.Type != layerindex.TypeDir {
			return false
		}
		dirs = append([]string{d}, dirs...)
	}
	for _, d := range dirs {
		a.directory(d, m)
	}
	return true
}

// directory has an entry for a directory in the layer, with m's owner and time.
func (a *agreement) directory(p string, m member) {
	if a.made[p] != nil {
		return
	}
	d := dir(p+"/", mode(m.Mode|0o700), owner(m.UID, m.GID), mtime(m.ModSec, m.ModNsec))
	a.layer = append(a.layer, d)
	a.made[p] = &d
}

// result is what the layers have once this one is applied.
func (a *agreement) result() map[string]layerindex.Type {
	all := map[string]layerindex.Type{}
	for p, typ := range a.lower {
		t := a.made[p]
		keep := !a.gone[p] && !covered(a.gone, p) && !covered(a.opaque, p) && t == nil
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			if t := a.made[d]; t != nil && t.Type != layerindex.TypeDir {
				keep = false
			}
		}
		if keep {
			all[p] = typ
		}
	}
	for p, m := range a.made {
		all[p] = m.Type
	}
	delete(all, ".")
	return all
}
