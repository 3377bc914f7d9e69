package bundle

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
	"strings"
)

// An elfHeader is what is wanted of the beginning of an ELF file. debug/elf reads the
// tables at its end as well, which would have to be fetched.
type elfHeader struct {
	order    binary.ByteOrder
	wide     bool // 64 bits
	machine  elf.Machine
	programs []byte // the program headers
	size     int    // of each
}

// parseELF returns the header of the ELF file that begins with head.
func parseELF(head []byte) (h elfHeader, ok bool) {
	if len(head) < 64 || !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return h, false
	}
	switch elf.Data(head[elf.EI_DATA]) {
	case elf.ELFDATA2LSB:
		h.order = binary.LittleEndian
	case elf.ELFDATA2MSB:
		h.order = binary.BigEndian
	default:
		return h, false
	}
	h.wide = elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64
	h.machine = elf.Machine(h.order.Uint16(head[18:]))
	off, size, count := uint64(h.order.Uint32(head[28:])), h.order.Uint16(head[42:]), h.order.Uint16(head[44:])
	if h.wide {
		off, size, count = h.order.Uint64(head[32:]), h.order.Uint16(head[54:]), h.order.Uint16(head[56:])
	}
	h.size = int(size)
	if end := uint64(size) * uint64(count); off <= uint64(len(head)) && end <= uint64(len(head))-off {
		h.programs = head[off : off+end]
	}
	return h, true
}

// linkerOf returns the dynamic linker that an ELF file names in its first bytes; "" if it
// names none there.
func linkerOf(head []byte) string {
	h, ok := parseELF(head)
	least := 32
	if h.wide {
		least = 56
	}
	if !ok || h.size < least {
		return ""
	}
	for p := h.programs; len(p) >= h.size; p = p[h.size:] {
		if elf.ProgType(h.order.Uint32(p)) != elf.PT_INTERP {
			continue
		}
		off, size := uint64(h.order.Uint32(p[4:])), uint64(h.order.Uint32(p[16:]))
		if h.wide {
			off, size = h.order.Uint64(p[8:]), h.order.Uint64(p[32:])
		}
		if off > uint64(len(head)) || size > uint64(len(head))-off {
			return ""
		}
		name, _, _ := strings.Cut(string(head[off:off+size]), "\x00")
		return name
	}
	return ""
}

// A machine is a processor, as ELF files and binfmt_misc name it.
type machine struct {
	elf   elf.Machine
	wide  bool
	order binary.ByteOrder
}

// machines are the processors that GOARCH names.
var machines = map[string]machine{
	"386":      {elf.EM_386, false, binary.LittleEndian},
	"amd64":    {elf.EM_X86_64, true, binary.LittleEndian},
	"arm":      {elf.EM_ARM, false, binary.LittleEndian},
	"arm64":    {elf.EM_AARCH64, true, binary.LittleEndian},
	"loong64":  {elf.EM_LOONGARCH, true, binary.LittleEndian},
	"mips64":   {elf.EM_MIPS, true, binary.BigEndian},
	"mips64le": {elf.EM_MIPS, true, binary.LittleEndian},
	"ppc64":    {elf.EM_PPC64, true, binary.BigEndian},
	"ppc64le":  {elf.EM_PPC64, true, binary.LittleEndian},
	"riscv64":  {elf.EM_RISCV, true, binary.LittleEndian},
	"s390x":    {elf.EM_S390, true, binary.BigEndian},
}

// machineOf returns the processor that an ELF file is for, as GOARCH names it, if it is one
// of machines.
func machineOf(head []byte) (arch string, ok bool) {
	h, ok := parseELF(head)
	if !ok {
		return "", false
	}
	for arch, m := range machines {
		if m == (machine{h.machine, h.wide, h.order}) {
			return arch, true
		}
	}
	return "", false
}

// executes reports whether this machine executes programs for a processor.
func executes(arch string) bool {
	switch native := runtime.GOARCH; {
	case arch == native, arch == "386" && native == "amd64", arch == "arm" && native == "arm64":
		return true
	}
	return emulates(arch)
}
