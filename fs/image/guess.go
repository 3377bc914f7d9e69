package image

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"path"
	"strings"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/profile"
)

const (
	// maxGuessed is how many programs and libraries are looked at for one forecast.
	maxGuessed = 512
	// maxGuessRead is how many bytes of one of them are looked at.
	maxGuessRead = 4 << 20
	// A library of up to wholeLibrary bytes is expected to be read whole: of what node,
	// python and others need, that is what they do, as the kernel reads ahead. Of a larger
	// one its code and what is relocated is: the rest is data, of which little may be used.
	wholeLibrary = 8 << 20
	// maxWords is how long the first line of a script may be: what Linux takes.
	maxWords = 256
)

// A guesser finds out what a program needs that was not seen before: the interpreter and
// the libraries that its file names, and what these name. It looks where dynamic linkers
// look without being told otherwise. What it says is a guess: a program can load others.
type guesser struct {
	img  *Image
	seen map[uint64]bool
	// want and later have something be fetched, and be so when there is nothing else.
	want, later func(...want)
}

// A file is a regular file, and a path by which it was found; "" if it was not.
type file struct {
	fs.Node
	path string
}

// guess looks at a file of which something was read, and at all that it names.
func (g *guesser) guess(ctx context.Context, n fs.Node) {
	if g.seen[n.Ino()] {
		return
	}
	g.expect(n)
	for queue := []file{{n, ""}}; len(queue) > 0 && ctx.Err() == nil; queue = queue[1:] {
		n := queue[0]
		if g.seen[n.Ino()] || len(g.seen) >= maxGuessed {
			continue
		}
		g.seen[n.Ino()] = true
		for _, need := range g.needs(ctx, n) {
			if !g.seen[need.Ino()] {
				g.expect(need.Node) // before it is looked at, which may take round trips
				queue = append(queue, need)
			}
		}
	}
}

// expect has the beginning of a program or library be fetched, or all of it.
func (g *guesser) expect(n fs.Node) {
	size := n.Attr().Size
	if size > wholeLibrary {
		size = profile.Grain
	}
	g.want(want{n, 0, size})
}

// needs returns the files that a program or library names. The code of a large one is
// expected to be read, too.
func (g *guesser) needs(ctx context.Context, n file) []file {
	r := &guessReader{ctx: ctx, img: g.img, n: n.Node, left: maxGuessRead}
	start := make([]byte, maxWords)
	got, _ := r.ReadAt(start, 0)
	start = start[:got]
	if line, isScript := bytes.CutPrefix(start, []byte("#!")); isScript {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		return g.interpreter(strings.Fields(string(line)))
	}
	if !bytes.HasPrefix(start, []byte(elf.ELFMAG)) {
		return nil
	}
	f, err := readELF(r, n.path)
	if err != nil {
		return nil
	}
	if size := n.Attr().Size; size > wholeLibrary {
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && p.Flags&(elf.PF_X|elf.PF_W) != 0 && p.Off < uint64(size) {
				g.later(want{n.Node, int64(p.Off), int64(min(p.Filesz, uint64(size)-p.Off))})
			}
		}
	}
	return g.libraries(f)
}

// interpreter returns the programs in the first line of a script.
func (g *guesser) interpreter(words []string) (found []file) {
	for i, word := range words {
		if i > 1 {
			break // the rest is arguments
		}
		dirs := []string{""}
		if i == 1 {
			if path.Base(words[0]) != "env" {
				break
			}
			dirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
		}
		if n, ok := g.find(dirs, word); ok {
			found = append(found, n)
		}
	}
	return found
}

// libraries returns the interpreter and the libraries that an ELF file names.
func (g *guesser) libraries(f *elfNeeds) (found []file) {
	if f.interpreter != "" {
		if n, ok := g.find([]string{""}, f.interpreter); ok {
			found = append(found, n)
		}
	}
	dirs := append(f.dirs, libraryDirs(f.Machine)...)
	for _, name := range f.libraries {
		if n, ok := g.find(dirs, name); ok {
			found = append(found, n)
		}
	}
	return found
}

// libraryDirs are where libraries are looked for, in distributions with one architecture
// and with several.
func libraryDirs(m elf.Machine) []string {
	triplet := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu", elf.EM_ARM: "arm-linux-gnueabihf",
		elf.EM_386: "i386-linux-gnu", elf.EM_RISCV: "riscv64-linux-gnu", elf.EM_PPC64: "powerpc64le-linux-gnu", elf.EM_S390: "s390x-linux-gnu"}[m]
	return []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"}
}

// find returns the first of some regular files that is there.
func (g *guesser) find(dirs []string, name string) (file, bool) {
	if strings.Contains(name, "/") {
		dirs = []string{""}
	}
	for _, dir := range dirs {
		p := path.Join("/", dir, name)
		if !strings.HasPrefix(dir+"/"+name, "/") || len(p) > profile.MaxPath {
			continue
		}
		if n, err := g.img.tree.Lookup(p, true); err == nil && n.Layer() >= 0 {
			return file{n, p}, true
		}
	}
	return file{}, false
}

// A guessReader reads a file past the counters: nobody has asked for it.
type guessReader struct {
	ctx  context.Context
	img  *Image
	n    fs.Node
	left int64
}

var errGuessedEnough = errors.New("no more of it is looked at")

// ReadAt implements io.ReaderAt.
func (r *guessReader) ReadAt(p []byte, off int64) (int, error) {
	size := r.n.Attr().Size
	if off < 0 || off >= size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > size-off {
		p, end = p[:size-off], io.EOF
	}
	if r.left -= int64(len(p)); r.left < 0 {
		return 0, errGuessedEnough
	}
	layer := &layerContent{r.img, r.img.layers.all[r.n.Layer()]}
	n, err := layer.ReadFileAt(r.ctx, r.n, p, off)
	if err == nil {
		err = end
	}
	return n, err
}
