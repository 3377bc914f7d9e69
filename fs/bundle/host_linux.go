package bundle

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// seccompProfile returns docker's default profile, for this kernel and the capabilities of
// the spec.
func seccompProfile(spec *specs.Spec) (*specs.LinuxSeccomp, error) {
	return seccomp.GetDefaultProfile(spec)
}

// cgroupsAreUnified reports whether the machine has cgroups v2 alone, so that a container
// can have a cgroup namespace that every runtime knows how to mount.
func cgroupsAreUnified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// emulators is where the kernel lists the programs that execute others' programs.
const emulators = "/proc/sys/fs/binfmt_misc"

// emulates reports whether binfmt_misc has an emulator of a processor.
func emulates(arch string) bool {
	m, ok := machines[arch]
	return ok && hasEmulator(func(entry string) bool { return emulatorFor(entry, m) })
}

// emulatesAnything reports whether binfmt_misc has any emulator, of whatever.
func emulatesAnything() bool {
	return hasEmulator(func(entry string) bool { return strings.HasPrefix(entry, "enabled\n") })
}

func hasEmulator(is func(entry string) bool) bool {
	entries, err := os.ReadDir(emulators)
	if err != nil {
		return false
	}
	for _, e := range entries {
		text, err := os.ReadFile(emulators + "/" + e.Name())
		if err == nil && e.Name() != "status" && e.Name() != "register" && is(string(text)) {
			return true
		}
	}
	return false
}

// emulatorFor reports whether the entry of binfmt_misc is enabled and takes programs of a
// machine: docs.kernel.org/admin-guide/binfmt-misc.html.
func emulatorFor(entry string, m machine) bool {
	lines := strings.Split(entry, "\n")
	if lines[0] != "enabled" {
		return false
	}
	for _, line := range lines {
		text, ok := strings.CutPrefix(line, "magic ")
		if !ok {
			continue
		}
		magic, err := hex.DecodeString(text)
		if err != nil || len(magic) < 20 {
			return false
		}
		head := append(bytes.Clone(magic), make([]byte, 64)...)
		h, ok := parseELF(head)
		return ok && h.machine == m.elf && h.wide == m.wide && h.order == m.order
	}
	return false
}
