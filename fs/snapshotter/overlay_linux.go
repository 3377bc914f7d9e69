package snapshotter

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/continuity/fs"
	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// overlayOptions returns the options that every overlay of a root has.
func overlayOptions(root string) (options []string, err error) {
	if typed, err := fs.SupportsDType(root); err != nil || !typed {
		return nil, errors.Join(err, fmt.Errorf("root %s: an overlay needs a file system that tells the types of files in lists (d_type)", root))
	}
	// What an overlay notes of a file are attributes trusted.overlay.*, which nobody but root
	// of the machine can set. On a tmpfs others cannot either.
	if userns.RunningInUserNS() {
		var st unix.Statfs_t
		if err := unix.Statfs(root, &st); err != nil {
			return nil, fmt.Errorf("root %s: %w", root, err)
		}
		if st.Type != unix.TMPFS_MAGIC {
			options = append(options, "userxattr")
		}
	}
	// With an index an upper directory can be mounted once only, and containerd mounts it again
	// to compare it.
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		options = append(options, "index=off")
	}
	return options, nil
}
