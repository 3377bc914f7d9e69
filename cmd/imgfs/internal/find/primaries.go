package find

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/gnu"
	"github.com/imgfs/imgfs/fs"
	"golang.org/x/sys/unix"
)

// A primary is a test, an action or an option. An error of build says what is wrong with
// its argument.
type primary struct {
	args  int // 0 or 1
	build func(p *parser, word, arg string) (test, error)
}

// primaries are all that there are.
var primaries = map[string]primary{
	"-true": option(func(*parser) {}), "-false": {0, func(*parser, string, string) (test, error) { return func(*file) bool { return false }, nil }},
	"-depth": option(deepFirst), "-d": option(deepFirst), "-follow": option(func(p *parser) { p.follow = followAll }),
	"-daystart": option((*parser).fromDayStart), "-maxdepth": {1, maxDepth}, "-mindepth": {1, minDepth}, "-regextype": {1, regexType},
	// An image is one file system that nobody changes.
	"-xdev": option(func(*parser) {}), "-mount": option(func(*parser) {}), "-noleaf": option(func(*parser) {}), "-warn": option(func(*parser) {}),
	"-nowarn": option(func(*parser) {}), "-ignore_readdir_race": option(func(*parser) {}), "-noignore_readdir_race": option(func(*parser) {}),

	"-name": {1, onText(plainName, false)}, "-iname": {1, onText(plainName, true)}, "-path": {1, onText((*file).pathname, false)}, "-ipath": {1, onText((*file).pathname, true)},
	"-wholename": {1, onText((*file).pathname, false)}, "-iwholename": {1, onText((*file).pathname, true)},
	"-lname": {1, onTarget(false)}, "-ilname": {1, onTarget(true)},
	"-regex": {1, onRegex(false)}, "-iregex": {1, onRegex(true)},
	"-type": {1, onType((*file).kind)}, "-xtype": {1, onType((*file).otherKind)},
	"-size": {1, onSize}, "-empty": {0, onEmpty}, "-perm": {1, onPerm}, "-executable": {0, onExecutable},
	"-links": {1, onNumber(func(f *file) uint64 { return uint64(f.attr.Nlink) })}, "-inum": {1, onNumber(func(f *file) uint64 { return f.node.Ino() })},
	"-uid": {1, onNumber(func(f *file) uint64 { return uint64(f.attr.UID) })}, "-gid": {1, onNumber(func(f *file) uint64 { return uint64(f.attr.GID) })},
	"-user": {1, onOwner(false)}, "-group": {1, onOwner(true)}, "-nouser": {0, withoutOwner(false)}, "-nogroup": {0, withoutOwner(true)},
	"-samefile": {1, onSameFile},
	"-mtime":    {1, onAge(day)}, "-atime": {1, onAge(day)}, "-ctime": {1, onAge(day)}, "-mmin": {1, onAge(60)}, "-amin": {1, onAge(60)}, "-cmin": {1, onAge(60)},
	"-newer": {1, onNewer}, "-anewer": {1, onNewer}, "-cnewer": {1, onNewer},
	"-newermt": {1, onNewerThan}, "-newerat": {1, onNewerThan}, "-newerct": {1, onNewerThan},
	"-newermm": {1, onNewer}, "-newerma": {1, onNewer}, "-newermc": {1, onNewer}, "-neweram": {1, onNewer}, "-neweraa": {1, onNewer}, "-newerac": {1, onNewer},
	"-newercm": {1, onNewer}, "-newerca": {1, onNewer}, "-newercc": {1, onNewer},

	"-print": {0, printing((*file).print)}, "-print0": {0, printing(func(f *file) { f.printPath(0) })}, "-ls": {0, printing((*file).list)}, "-printf": {1, formatting},
	"-prune": {0, func(*parser, string, string) (test, error) { return prune, nil }}, "-quit": {0, func(*parser, string, string) (test, error) { return quit, nil }},
}

// A refusal says why there is no such primary, and what to type instead.
type refusal struct{ why, instead string }

// refused are primaries of find(1) that have no meaning in an image, or do more than look.
var refused = func() map[string]refusal {
	all := make(map[string]refusal)
	add := func(why, instead string, words ...string) {
		for _, w := range words {
			all[w] = refusal{why, instead}
		}
	}
	add("no program can open the files of an image", "imgfs find IMAGE:/ ... -print0 | xargs -0 imgfs cat; or mount the image: imgfs mount IMAGE DIR && find DIR ...", "-exec", "-execdir", "-ok", "-okdir")
	add("images are read-only", "imgfs find IMAGE ... lists the files", "-delete")
	add("nothing is written to files", "-print, -print0, -ls or -printf, and > FILE behind the command", "-fprint", "-fprint0", "-fprintf", "-fls")
	add("whether files can be read depends on who reads them", "-perm -444 for what everybody can read, -perm /222 for what somebody can write", "-readable", "-writable")
	add("an image is one file system, and knows nothing of the kind", "leave it out", "-fstype", "-context", "-used")
	add("images do not know when files were made", "-newermt DATE or -newer FILE", "-Bmin", "-Btime", "-Bnewer", "-newerBt", "-newerBm", "-newermB", "-newerBB")
	add("paths are arguments", "xargs -0 imgfs find IMAGE < FILE", "-files0-from")
	add("help is a command of imgfs", "imgfs help find", "-help")
	add("the version is a command of imgfs", "imgfs version", "-version")
	add("nothing is optimised in ways that one can see", "leave it out", "-D")
	return all
}()

// option is a primary that says something about the search as such, and is true.
func option(set func(p *parser)) primary {
	return primary{0, func(p *parser, _, _ string) (test, error) { set(p); return yes, nil }}
}

func deepFirst(p *parser) { p.depthFirst = true }

// fromDayStart has ages count from the end of this day.
func (p *parser) fromDayStart() {
	p.dayEnd = momentOf(midnight(p.clock)).plus(day)
}

func maxDepth(p *parser, _, arg string) (_ test, err error) {
	p.maxDepth, err = depth(arg)
	return yes, err
}

func minDepth(p *parser, _, arg string) (_ test, err error) {
	p.minDepth, err = depth(arg)
	return yes, err
}

func depth(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("it is a number of levels, 0 for the paths given themselves")
	}
	return int(n), nil
}

func regexType(p *parser, _, arg string) (_ test, err error) {
	p.syntax, err = syntaxNamed(arg)
	return yes, err
}

func plainName(f *file) string { return f.name }

// matcher returns what reports whether a text is as a pattern of the shell's says; with
// fold whatever the case of letters.
func matcher(pattern string, fold bool) func(string) bool {
	switch {
	case fold:
		lower := strings.ReplaceAll(toLower(pattern), "[:upper:]", "[:lower:]")
		return func(s string) bool { return gnu.Match(lower, toLower(s)) }
	case !strings.ContainsAny(pattern, `*?[\`):
		return func(s string) bool { return s == pattern }
	}
	return func(s string) bool { return gnu.Match(pattern, s) }
}

// toLower returns a text in lower case. Bytes that are no UTF-8 stay as they are.
func toLower(s string) string {
	if utf8.ValidString(s) {
		return strings.ToLower(s)
	}
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// onText is a test of a text with a pattern.
func onText(text func(*file) string, fold bool) func(*parser, string, string) (test, error) {
	return func(_ *parser, _, arg string) (test, error) {
		match := matcher(arg, fold)
		return func(f *file) bool { return match(text(f)) }, nil
	}
}

// onTarget is a test of what a symlink says.
func onTarget(fold bool) func(*parser, string, string) (test, error) {
	return func(_ *parser, _, arg string) (test, error) {
		match := matcher(arg, fold)
		return func(f *file) bool { return f.isLink() && match(f.node.Target()) }, nil
	}
}

func onRegex(fold bool) func(*parser, string, string) (test, error) {
	return func(p *parser, _, arg string) (test, error) {
		match, err := p.syntax.compile(arg, fold)
		return func(f *file) bool { return match(f.pathname()) }, err
	}
}

// kindLetters are the letters of kinds of files, as -type has them.
var kindLetters = map[uint32]byte{unix.S_IFREG: 'f', unix.S_IFDIR: 'd', unix.S_IFLNK: 'l', unix.S_IFCHR: 'c', unix.S_IFBLK: 'b', unix.S_IFIFO: 'p', unix.S_IFSOCK: 's'}

// kind returns the kind of a file.
func (f *file) kind() uint32 { return f.attr.Mode & unix.S_IFMT }

// otherKind returns the kind that -type does not see: that of the target of a symlink, or,
// with -L, of the symlink itself.
func (f *file) otherKind() uint32 {
	if f.link != f.node {
		return f.link.Mode() & unix.S_IFMT
	}
	if f.isLink() {
		to, err := f.w.target()
		if err == nil {
			return to.Mode() & unix.S_IFMT
		}
		if isLoop(err) {
			f.w.failed(err)
			return 0
		}
	}
	return f.kind()
}

// onType is a test of the kind of a file: letters with commas between them.
func onType(kindOf func(*file) uint32) func(*parser, string, string) (test, error) {
	return func(_ *parser, _, arg string) (test, error) {
		wanted := make(map[uint32]bool)
		for letter := range strings.SplitSeq(arg, ",") {
			found := letter == "D" // doors of Solaris, which images have none of
			for kind, l := range kindLetters {
				if letter == string(l) {
					found, wanted[kind] = true, true
				}
			}
			if !found {
				return reject("it is one of f, d, l, c, b, p and s, or several with commas between them")
			}
		}
		return func(f *file) bool { return wanted[kindOf(f)] }, nil
	}
}

func onSize(_ *parser, _, arg string) (test, error) {
	match, err := parseSize(arg)
	return func(f *file) bool { return match(f.attr.Size) }, err
}

func onEmpty(*parser, string, string) (test, error) {
	return func(f *file) bool {
		switch f.kind() {
		case unix.S_IFREG:
			return f.attr.Size == 0
		case unix.S_IFDIR:
			return f.node.NumChildren() == 0
		}
		return false
	}, nil
}

func onPerm(_ *parser, _, arg string) (test, error) {
	match, err := parsePerm(arg)
	return func(f *file) bool { return match(f.attr.Mode) }, err
}

// onExecutable is whether root could run a program, or enter a directory. Symlinks count
// as what they lead to.
func onExecutable(*parser, string, string) (test, error) {
	return func(f *file) bool {
		mode := f.attr.Mode
		if f.isLink() {
			to, err := f.w.target()
			if err != nil {
				return false
			}
			mode = to.Mode()
		}
		return mode&unix.S_IFMT == unix.S_IFDIR || mode&0o111 != 0
	}, nil
}

func onNumber(of func(*file) uint64) func(*parser, string, string) (test, error) {
	return func(_ *parser, _, arg string) (test, error) {
		n, err := parseNumber(arg)
		return func(f *file) bool { return n.matches(of(f)) }, err
	}
}

// onOwner is a test of the name of the user or group, by the image's own names, or of the
// number, if there is no such name.
func onOwner(group bool) func(*parser, string, string) (test, error) {
	return func(p *parser, word, arg string) (test, error) {
		if arg == "" {
			return reject("it is a name or a number")
		}
		var id uint32
		p.prepare = append(p.prepare, func(w *Walker) error {
			if n, err := strconv.ParseUint(arg, 10, 32); err == nil {
				id = uint32(n)
				return nil
			}
			find := w.ownersOf().UserID
			if group {
				find = w.ownersOf().GroupID
			}
			var ok bool
			if id, ok = find(arg); !ok {
				return fmt.Errorf("%s %s: the image knows no such name", word, arg)
			}
			return nil
		})
		return func(f *file) bool {
			if group {
				return f.attr.GID == id
			}
			return f.attr.UID == id
		}, nil
	}
}

// withoutOwner is a test whether the user or group has no name in the image.
func withoutOwner(group bool) func(*parser, string, string) (test, error) {
	return func(*parser, string, string) (test, error) {
		return func(f *file) bool {
			o, known := f.w.ownersOf(), false
			if _, known = o.User(f.attr.UID); group {
				_, known = o.Group(f.attr.GID)
			}
			return !known
		}, nil
	}
}

// onFile is a test that refers to another file of the same image. set is called with that
// before each search.
func (p *parser) onFile(word, arg string, set func(fs.Node)) {
	p.prepare = append(p.prepare, func(w *Walker) error {
		n, err := w.start.Image.Tree.Lookup(arg, w.e.follow != followNone)
		if err != nil {
			return fmt.Errorf("%s %s: there is no such file in the image", word, arg)
		}
		set(n)
		return nil
	})
}

func onSameFile(p *parser, word, arg string) (test, error) {
	var same fs.Node
	p.onFile(word, arg, func(n fs.Node) { same = n })
	return func(f *file) bool { return f.node == same }, nil
}

func onNewer(p *parser, word, arg string) (test, error) {
	var than moment
	p.onFile(word, arg, func(n fs.Node) { than = modified(n.Attr()) })
	return func(f *file) bool { return modified(f.attr).compare(than) > 0 }, nil
}

func onNewerThan(p *parser, _, arg string) (test, error) {
	than, err := parseDate(arg, p.clock)
	return func(f *file) bool { return modified(f.attr).compare(than) > 0 }, err
}

// onAge is a test of how many units of time ago a file was changed last.
func onAge(unit float64) func(*parser, string, string) (test, error) {
	return func(p *parser, _, arg string) (test, error) {
		match, err := parseAge(arg, unit, p.dayEnd)
		return func(f *file) bool { return match(modified(f.attr)) }, err
	}
}

// printing is an action that prints a file.
func printing(print func(*file)) func(*parser, string, string) (test, error) {
	return func(p *parser, word, _ string) (test, error) {
		if p.acts = true; word != "-print" && p.formats == "" {
			p.formats = word
		}
		return func(f *file) bool { print(f); return true }, nil
	}
}

// formatting is -printf.
func formatting(p *parser, word, arg string) (test, error) {
	if p.acts = true; p.formats == "" {
		p.formats = word
	}
	format, err := parseFormat(arg)
	return func(f *file) bool { f.printFormat(format); return true }, err
}

// prune is -prune: what is in a directory is not looked at.
func prune(f *file) bool {
	f.w.pruned = true
	return true
}

// quit is -quit: nothing more is looked at.
func quit(f *file) bool {
	f.w.quit = true
	return true
}
