package holder

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A holder begins here, before most of the program's packages are initialised: Go takes
// them in the order of their paths, as far as imports allow. What they set up would be half
// of what a holder has of its own.
func init() {
	if Is(os.Args) {
		os.Exit(run())
	}
}

// A span is a range of addresses.
type span struct{ from, to uintptr }

// unchanged returns where parts of files are mapped that cannot be written, and of which
// this process has no pages of its own: a dynamic linker has written into some that are
// read-only now: those would be lost. smaps is what /proc/self/smaps says, as in
//
//	00400000-00f3c000 r-xp 00000000 fe:00 1234   /usr/bin/imgfs
//	Rss:                 832 kB
//	Anonymous:             0 kB
//	Swap:                  0 kB
func unchanged(smaps []byte) (all []span) {
	var s span
	file, clean := false, false
	add := func() {
		if file && clean {
			all = append(all, s)
		}
		file, clean = false, false
	}
	for line := range bytes.Lines(smaps) {
		f := bytes.Fields(line)
		switch {
		case len(f) < 3:
		case bytes.HasSuffix(f[0], []byte(":")):
			switch name := string(f[0]); {
			case name == "Anonymous:":
				clean = string(f[1]) == "0"
			case name == "Swap:" && string(f[1]) != "0":
				file = false
			}
		default:
			add()
			n, _ := fmt.Sscanf(string(f[0]), "%x-%x", &s.from, &s.to)
			file = n == 2 && len(f) > 5 && f[5][0] == '/' && f[1][1] == '-'
		}
	}
	add()
	return all
}

// findFiles notes which memory comes from files again when it is used.
func (h *keeper) findFiles() {
	if smaps, err := os.ReadFile("/proc/self/smaps"); err == nil {
		h.files = unchanged(smaps)
	}
}

// forgetFiles gives back the memory that comes from files, as far as it is not used at
// once: nobody but a holder may run this program.
func (h *keeper) forgetFiles() {
	for _, s := range h.files {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, s.from, s.to-s.from, unix.MADV_DONTNEED) // or it stays
	}
}
