//go:build linux

package bundle

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"github.com/imgfs/imgfs/fs/internal/layertest"
)

// elfFile returns the beginning of a program for a processor, with a dynamic linker.
func elfFile(m machine, linker string) string {
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[20] = 2, 1
	order := m.order
	if order == binary.BigEndian {
		b[5] = 2
	}
	put := func(at int, v uint64) { order.PutUint64(b[at:], v) }
	order.PutUint16(b[18:], uint16(m.elf))
	put(32, 64)                       // e_phoff
	order.PutUint16(b[54:], 56)       // e_phentsize
	order.PutUint16(b[56:], 1)        // e_phnum
	order.PutUint32(b[64:], 3)        // PT_INTERP
	put(64+8, uint64(len(b)))         // p_offset
	put(64+32, uint64(len(linker)+1)) // p_filesz
	return string(b) + linker + "\x00"
}

// TestProgram: a program that surely cannot be executed is refused before it is tried.
func TestProgram(t *testing.T) {
	native, ok := machines[runtime.GOARCH]
	if !ok || !native.wide {
		t.Skipf("the test does not know how programs for %s look", runtime.GOARCH)
	}
	foreign := "s390x"
	if executes(foreign) {
		t.Skipf("this machine executes programs for %s", foreign)
	}
	neither := NotExecutable
	if emulatesAnything() { // such as programs of Java
		neither = 0
	}
	for _, test := range []struct {
		name, program string
		want          Reason // 0: none
	}{
		{"linker", elfFile(native, "/bin/busybox"), 0},
		{"no linker", elfFile(native, "/lib/ld.so"), NotFound},
		{"linker with a strange name", elfFile(native, "\x1b[2J"), 0}, // relative: the kernel says so
		{"foreign", elfFile(machines[foreign], "/bin/busybox"), BadPlatform},
		{"short", "\x7fELF", 0},
		{"cut off", elfFile(native, "/lib/ld.so")[:100], 0},
		{"script", "#!/bin/busybox\n", 0},
		{"script with no interpreter", "#!/no/such\n", NotFound},
		{"empty", "", neither},
		{"script without an interpreter", "echo\n", neither},
	} {
		t.Run(test.name, func(t *testing.T) {
			tree := treeOf(t, smallRoot(layertest.File("bin/it", test.program, layertest.Mode(0o755)))...)
			_, err := Spec(t.Context(), shell(), tree, &Options{Args: []string{"it"}})
			var refused *Error
			switch {
			case test.want == 0 && err != nil, test.want != 0 && (!errors.As(err, &refused) || refused.Reason != test.want):
				t.Errorf("got %v, want the reason %d", err, test.want)
			}
		})
	}
}

func TestPlatform(t *testing.T) {
	for _, test := range []struct{ os, arch, want string }{
		{"", "", ""},
		{"linux", runtime.GOARCH, ""},
		{"windows", runtime.GOARCH, "the image is for windows: only images for linux can be run"},
		{"linux", "wasm\x1b", `the image is for linux/$'wasm\033', which this machine does not execute`},
	} {
		config := shell()
		config.OS, config.Architecture = test.os, test.arch
		got := ""
		if _, err := Spec(t.Context(), config, treeOf(t, smallRoot()...), nil); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s/%s: got %q, want %q", test.os, test.arch, got, test.want)
		}
	}
}

// TestEmulator reads entries of binfmt_misc.
func TestEmulator(t *testing.T) {
	const arm64 = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
	for entry, want := range map[string]bool{
		arm64:                       true,
		"disabled\n" + arm64[8:]:    false,
		"enabled\nextension .exe\n": false,
		"enabled\nmagic 7f45\n":     false,
		"enabled\nmagic xx\n":       false,
		"":                          false,
	} {
		if got := emulatorFor(entry, machines["arm64"]); got != want {
			t.Errorf("%q: got %v, want %v", entry, got, want)
		}
		if emulatorFor(entry, machines["amd64"]) {
			t.Errorf("%q is for amd64", entry)
		}
	}
}
