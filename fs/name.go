package fs

import "strings"

const (
	maxName   = 255  // bytes of a component, Linux NAME_MAX
	maxPath   = 4096 // bytes of a path below the root, Linux PATH_MAX
	maxFollow = 40   // symlinks on the way to one path, Linux MAXSYMLINKS

	// WhiteoutPrefix is what names of whiteouts begin with: OCI image-spec,
	// layer.md, "Whiteouts" and "Opaque Whiteout". Names that begin with
	// whiteoutMeta are AUFS's own files.
	WhiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// A kind is what an entry's name alone makes of the entry.
type kind uint8

const (
	kindNone     kind = iota // the empty name: ignored
	kindRoot                 // the root directory itself
	kindEntry                // base in dir
	kindWhiteout             // hides base in dir
	kindOpaque               // hides everything in dir
	kindReserved             // not shown; dir is the whole path
)

// A place is an entry's name, understood.
type place struct {
	kind kind
	dir  string // cleaned path of the directory that holds base; "" is the root
	base string
}

// placeOf classifies the name of an entry. It looks at nothing but the name.
func placeOf(name string) (place, error) {
	if name == "" {
		return place{kind: kindNone}, nil
	}
	path, escapes := clean(name)
	if escapes {
		return place{}, ErrEscape
	}
	if path == "" {
		return place{kind: kindRoot}, nil
	}
	dir, base := split(path)
	if !strings.Contains(path, WhiteoutPrefix) {
		return place{kindEntry, dir, base}, nil
	}
	hidden, isWhiteout := strings.CutPrefix(base, WhiteoutPrefix)
	switch {
	case isWhiteout && (hidden == "" || hidden == "." || hidden == ".."):
		return place{}, ErrWhiteoutName
	case base == whiteoutOpaque && !isReserved(dir):
		return place{kind: kindOpaque, dir: dir}, nil
	case isReserved(path):
		return place{kind: kindReserved, dir: path}, nil
	case isWhiteout:
		return place{kindWhiteout, dir, hidden}, nil
	}
	return place{kindEntry, dir, base}, nil
}

// isReserved says whether a component of a path begins with whiteoutMeta.
func isReserved(path string) bool {
	return strings.HasPrefix(path, whiteoutMeta) || strings.Contains(path, "/"+whiteoutMeta)
}

// split cuts a cleaned path before its last component.
func split(path string) (dir, base string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// clean returns a name as a path below the root without empty, "." and ".."
// components, "" for the root itself. A ".." of the root stays at the root,
// and escapes tells of it.
func clean(name string) (path string, escapes bool) {
	for {
		switch {
		case strings.HasPrefix(name, "/"):
			name = name[1:]
			continue
		case strings.HasPrefix(name, "./"):
			name = name[2:]
			continue
		}
		break
	}
	name = strings.TrimRight(name, "/")
	if isClean(name) {
		return name, false
	}
	var parts []string
	for c := range strings.SplitSeq(name, "/") {
		switch {
		case c == "" || c == ".":
		case c != "..":
			parts = append(parts, c)
		case len(parts) > 0:
			parts = parts[:len(parts)-1]
		default:
			escapes = true
		}
	}
	return strings.Join(parts, "/"), escapes
}

// isClean says whether no component of name is empty, "." or "..".
func isClean(name string) bool {
	// Nearly all names end here.
	if name != "" && name[0] != '.' && name[0] != '/' && name[len(name)-1] != '/' &&
		!strings.Contains(name, "/.") && !strings.Contains(name, "//") {
		return true
	}
	for c := range strings.SplitSeq(name, "/") {
		switch c {
		case "", ".", "..":
			return false
		}
	}
	return true
}
