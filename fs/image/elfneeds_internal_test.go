package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"reflect"
	"slices"
	"testing"
)

// elfFile returns a small ELF file with an interpreter and a dynamic section.
func elfFile(order binary.ByteOrder, class elf.Class, interpreter string, dynamic [][2]uint64, names string) []byte {
	const loaded, base = 0x1000, 0x400000
	var out bytes.Buffer
	put := func(v any) { _ = binary.Write(&out, order, v) } // a Buffer takes all
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(class), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	if order == binary.BigEndian {
		ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	var segment bytes.Buffer
	segment.WriteString(interpreter + "\x00")
	dynamicAt := uint64(segment.Len())
	for _, d := range append(dynamic, [2]uint64{uint64(elf.DT_STRTAB), 0}, [2]uint64{}) {
		if d[0] == uint64(elf.DT_STRTAB) {
			d[1] = base + 0x800
		}
		if class == elf.ELFCLASS32 {
			_ = binary.Write(&segment, order, [2]uint32{uint32(d[0]), uint32(d[1])})
		} else {
			_ = binary.Write(&segment, order, d)
		}
	}
	dynamicSize := uint64(segment.Len()) - dynamicAt
	segment.Write(make([]byte, 0x800-segment.Len()))
	segment.WriteString(names)
	size := uint64(segment.Len())
	// The section headers are said to be where there is nothing: nobody needs them.
	if class == elf.ELFCLASS32 {
		put(elf.Header32{Ident: ident, Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 52, Shoff: 1 << 30, Ehsize: 52, Phentsize: 32, Phnum: 3, Shentsize: 40, Shnum: 30, Shstrndx: 29})
		for _, p := range []elf.Prog32{{Type: uint32(elf.PT_INTERP), Off: loaded, Filesz: uint32(dynamicAt)},
			{Type: uint32(elf.PT_LOAD), Off: loaded, Vaddr: base, Filesz: uint32(size)}, {Type: uint32(elf.PT_DYNAMIC), Off: loaded + uint32(dynamicAt), Filesz: uint32(dynamicSize)}} {
			put(p)
		}
	} else {
		put(elf.Header64{Ident: ident, Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Shoff: 1 << 40, Ehsize: 64, Phentsize: 56, Phnum: 3, Shentsize: 64, Shnum: 30, Shstrndx: 29})
		for _, p := range []elf.Prog64{{Type: uint32(elf.PT_INTERP), Off: loaded, Filesz: dynamicAt},
			{Type: uint32(elf.PT_LOAD), Off: loaded, Vaddr: base, Filesz: size}, {Type: uint32(elf.PT_DYNAMIC), Off: loaded + dynamicAt, Filesz: dynamicSize}} {
			put(p)
		}
	}
	out.Write(make([]byte, loaded-out.Len()))
	out.Write(segment.Bytes())
	return out.Bytes()
}

func TestReadELF(t *testing.T) {
	t.Parallel()
	const names = "\x00libone.so.1\x00libtwo.so\x00/opt/lib:$ORIGIN/../lib:relative:$PLATFORM/x\x00"
	dynamic := [][2]uint64{{uint64(elf.DT_NEEDED), 1}, {uint64(elf.DT_RUNPATH), 23}, {uint64(elf.DT_NEEDED), 13}, {uint64(elf.DT_NEEDED), 1 << 31}}
	for _, class := range []elf.Class{elf.ELFCLASS32, elf.ELFCLASS64} {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			f, err := readELF(bytes.NewReader(elfFile(order, class, "/lib/ld.so", slices.Clone(dynamic), names)), "/usr/bin/program")
			if err != nil {
				t.Errorf("%v, %v: %v", class, order, err)
				continue
			}
			if want := []string{"libone.so.1", "libtwo.so"}; f.interpreter != "/lib/ld.so" || !reflect.DeepEqual(f.libraries, want) {
				t.Errorf("%v, %v: got %q and %q, want %q", class, order, f.interpreter, f.libraries, want)
			}
			if want := []string{"/opt/lib", "/usr/bin/../lib"}; !reflect.DeepEqual(f.dirs, want) {
				t.Errorf("%v, %v: they are looked for in %q, want %q", class, order, f.dirs, want)
			}
		}
	}
}

// TestReadELFOfMachine: of a program of this machine readELF finds what debug/elf does.
func TestReadELFOfMachine(t *testing.T) {
	t.Parallel()
	f, err := os.Open("/bin/sh")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	whole, err := elf.NewFile(f)
	if err != nil {
		t.Skip(err)
	}
	want, err := whole.ImportedLibraries()
	if err != nil || len(want) == 0 {
		t.Skipf("/bin/sh needs %q, %v", want, err)
	}
	got, err := readELF(f, "/bin/sh")
	if err != nil || !slices.Equal(got.libraries, want) || got.interpreter == "" {
		t.Errorf("got %+v, %v, want %q", got, err, want)
	}
}

// FuzzReadELF: whatever a file says, little is read and nothing breaks.
func FuzzReadELF(f *testing.F) {
	for _, class := range []elf.Class{elf.ELFCLASS32, elf.ELFCLASS64} {
		f.Add(elfFile(binary.LittleEndian, class, "/lib/ld.so", [][2]uint64{{uint64(elf.DT_NEEDED), 1}}, "\x00libone.so\x00"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		need, err := readELF(bytes.NewReader(data), "/bin/a")
		if err == nil && len(need.libraries) > maxGuessed {
			t.Errorf("it needs %d libraries", len(need.libraries))
		}
	})
}
