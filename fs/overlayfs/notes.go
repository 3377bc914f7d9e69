//go:build linux

package overlayfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/imgfs/imgfs/fs/fusefs"
	"golang.org/x/sys/unix"
)

// A namespace is where an overlay keeps what it notes of files, such as that a directory
// hides that of the image.
type namespace string

const (
	trusted namespace = "trusted" // trusted.overlay.*, which only root can
	user    namespace = "user"    // user.overlay.*, of the kernel in a user namespace
	fuse    namespace = "fuse"    // what fuse-overlayfs has
)

// describe is what has written there, for people.
func (n namespace) describe() string {
	switch n {
	case trusted:
		return "the kernel's overlayfs as root"
	case user:
		return "the kernel's overlayfs in a user namespace"
	}
	return "fuse-overlayfs"
}

// notes are what an Upper remembers from mount to mount.
type notes struct {
	Notes    namespace `json:"notes,omitempty"`    // how overlays note things in upper
	Image    string    `json:"image,omitempty"`    // that it was first mounted over
	Manifest string    `json:"manifest,omitempty"` // digest of that
	Mount    string    `json:"mount,omitempty"`    // the mount that it is in, or was when a process was killed
	Boot     string    `json:"boot,omitempty"`     // of the machine, in which that was
}

// maxNotes is how long notes may be, in bytes.
const maxNotes = 64 << 10

func readNotes(dir *os.File) (n notes, err error) {
	fd, err := unix.Openat(int(dir.Fd()), notesName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return n, nil
	case err != nil:
		return n, &os.PathError{Op: "open", Path: notesName, Err: err}
	}
	f := os.NewFile(uintptr(fd), notesName)
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxNotes))
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(text, &n); err != nil {
		return notes{}, hinted{fmt.Errorf("%s in it is not what imgfs writes: %w", notesName, err), "remove that file, if the directory was last used by this user, for this image"}
	}
	return n, nil
}

// write replaces the notes in a directory.
func (n notes) write(dir *os.File) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	const next = workName + "/" + notesName // nothing but an overlay looks there
	fd, err := unix.Openat(int(dir.Fd()), next, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "open", Path: next, Err: err}
	}
	f := os.NewFile(uintptr(fd), next)
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return unix.Renameat(int(dir.Fd()), next, int(dir.Fd()), notesName)
}

// mountedOn returns where the overlay of the last mount still is, such as when the process
// was killed that served the image; "" if it is nowhere.
func (n notes) mountedOn() string {
	if n.Mount == "" || n.Boot != bootID() {
		return ""
	}
	return fusefs.StackedOn(n.Mount)
}

// bootID is what the kernel calls this run of the machine.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
