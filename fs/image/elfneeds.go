package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"path"
	"strings"
)

const (
	// maxDynamic is how much of a dynamic section is looked at, in bytes.
	maxDynamic = 64 << 10
	// maxName is how long the name of a library may be.
	maxName = 256
	// maxSegments is how many segments a file may have: programs have some ten.
	maxSegments = 64
)

// An elfNeeds is what an ELF file says that it needs: gABI, chapter 5, "Dynamic Linking".
type elfNeeds struct {
	*elf.File
	interpreter string
	libraries   []string // their names, or paths
	dirs        []string // where they are looked for first
}

// readELF reads what an ELF file at a path needs, in as few and as small reads as can be:
// debug/elf alone would read the section headers, at the file's end, and all names of its
// symbols.
func readELF(r io.ReaderAt, at string) (*elfNeeds, error) {
	f, err := elf.NewFile(&sectionless{ReaderAt: r})
	if err != nil {
		return nil, err
	}
	if len(f.Progs) > maxSegments {
		return nil, errGuessedEnough
	}
	need := &elfNeeds{File: f}
	if p := need.segment(elf.PT_INTERP); p != nil {
		need.interpreter = readName(r, int64(p.Off))
	}
	if p := need.segment(elf.PT_DYNAMIC); p != nil {
		need.readDynamic(r, p, at)
	}
	return need, nil
}

// segment returns the first segment of a type, nil if there is none.
func (need *elfNeeds) segment(of elf.ProgType) *elf.Prog {
	for _, p := range need.Progs {
		if p.Type == of {
			return p
		}
	}
	return nil
}

// readDynamic reads a dynamic section. What is not well formed is left out.
func (need *elfNeeds) readDynamic(r io.ReaderAt, p *elf.Prog, at string) {
	data := make([]byte, min(p.Filesz, maxDynamic))
	n, _ := r.ReadAt(data, int64(p.Off))
	data = data[:n]
	word := 4
	if need.Class == elf.ELFCLASS64 {
		word = 8
	}
	next := func() uint64 {
		v := data[:word]
		data = data[word:]
		if word == 4 {
			return uint64(need.ByteOrder.Uint32(v))
		}
		return need.ByteOrder.Uint64(v)
	}
	var strtab uint64
	var names, paths []uint64
	for len(data) >= 2*word {
		switch tag, value := elf.DynTag(next()), next(); tag {
		case elf.DT_NULL:
			data = nil
		case elf.DT_STRTAB:
			strtab = value
		case elf.DT_NEEDED:
			names = append(names, value)
		case elf.DT_RPATH, elf.DT_RUNPATH:
			paths = append(paths, value)
		}
	}
	name := func(off uint64) string {
		for _, p := range need.Progs { // the table lies in one of the segments
			if p.Type == elf.PT_LOAD && strtab >= p.Vaddr && strtab-p.Vaddr < p.Filesz && off < p.Filesz {
				return readName(r, int64(strtab-p.Vaddr+p.Off+off))
			}
		}
		return ""
	}
	for _, off := range names {
		if text := name(off); text != "" && len(need.libraries) < maxGuessed {
			need.libraries = append(need.libraries, text)
		}
	}
	for _, off := range paths {
		for _, dir := range strings.Split(name(off), ":") {
			dir = strings.NewReplacer("${ORIGIN}", path.Dir(at), "$ORIGIN", path.Dir(at)).Replace(dir)
			if path.IsAbs(dir) && !strings.Contains(dir, "$") {
				need.dirs = append(need.dirs, dir)
			}
		}
	}
}

// readName reads a text that ends with a zero byte; "" if there is none.
func readName(r io.ReaderAt, off int64) string {
	text := make([]byte, maxName)
	n, _ := r.ReadAt(text, off)
	name, _, ended := bytes.Cut(text[:n], []byte{0})
	if !ended {
		return ""
	}
	return string(name)
}

// sectionless reads an ELF file as if it had no section headers.
type sectionless struct{ io.ReaderAt }

// ReadAt implements io.ReaderAt.
func (r *sectionless) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.ReaderAt.ReadAt(p, off)
	if off != 0 || n < 52 {
		return n, err
	}
	// e_shoff, e_shnum and e_shstrndx: gABI, chapter 4, "ELF Header".
	if elf.Class(p[elf.EI_CLASS]) == elf.ELFCLASS32 {
		binary.NativeEndian.PutUint32(p[32:], 0)
		binary.NativeEndian.PutUint32(p[48:], 0)
	} else if n >= 64 {
		binary.NativeEndian.PutUint64(p[40:], 0)
		binary.NativeEndian.PutUint32(p[60:], 0)
	}
	return n, err
}
