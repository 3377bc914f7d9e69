package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/imgfs/imgfs/remote/beneath"
)

// MayWrite reports whether the disk is worth trying.
func (c *Dir) MayWrite() bool {
	return c.readOnly == nil && !c.Disk.Within(c.RetryWrites)
}

// MayKeep is MayWrite for what has to be fetched again where it is not kept:
// that the directory is read-only is said then.
func (c *Dir) MayKeep() bool { return !c.saysReadOnly() && c.MayWrite() }

// saysReadOnly reports whether the directory is read-only, and says so once.
func (c *Dir) saysReadOnly() bool {
	if c.readOnly != nil && c.warned.CompareAndSwap(false, true) {
		c.Warnf("%v; what cannot be stored is fetched each time it is read", c.readOnly)
	}
	return c.readOnly != nil
}

// DiskFailed notes that the disk refused something: nothing is written for a
// while, and the first time says so.
func (c *Dir) DiskFailed(err error) {
	if IsRefused(err) {
		return // it is about one file, and has been told
	}
	c.Disk.Refuse()
	c.WarnDisk(err)
}

// WarnDisk warns that the disk did not take what somebody else writes below the
// directory, or the budget had no room for it, unless the same has been said
// already.
func (c *Dir) WarnDisk(err error) {
	var full *fullError
	switch {
	case errors.Is(err, fs.ErrClosed): // the Cache is
	case errors.As(err, &full):
		if c.warnedRoom.CompareAndSwap(false, true) {
			c.Warnf("cache directory %s: %v; what does not fit is fetched or decoded each time it is read", c.path, full)
		}
	case c.warned.CompareAndSwap(false, true):
		c.Warnf("cache directory %s: %v; what cannot be stored is fetched each time it is read", c.path, err)
	}
}

// refused warns of the first thing in the directory that cannot be used.
func (c *Dir) refused(e *beneath.RefusedError) {
	if !c.warnedOf.CompareAndSwap(false, true) {
		return
	}
	c.Warnf("cache directory %s: %s; it counts as missing%s", c.path, c.complaint(e), c.remedy(e))
}

func (c *Dir) complaint(e *beneath.RefusedError) string {
	what := strings.TrimPrefix(strings.TrimPrefix(e.Path, c.path), "/")
	if what == "" {
		what = "it"
	}
	if e.Owned && int64(e.UID) != int64(os.Geteuid()) {
		return fmt.Sprintf("%s belongs to %s and cannot be used (%s)", what, userName(e.UID), e.Why())
	}
	return fmt.Sprintf("%s cannot be used (%s)", what, e.Why())
}

// remedy says what can be done, if something can.
func (c *Dir) remedy(e *beneath.RefusedError) string {
	mine := e.Owned && int64(e.UID) == int64(os.Geteuid())
	switch foreign := errors.Is(e.Err, beneath.ErrForeign); {
	case c.readOnly != nil || !e.Owned:
	case !mine && (foreign || errors.Is(e.Err, fs.ErrPermission)):
		return fmt.Sprintf(": sudo chown -R %s %s mends that", shortName(uint32(os.Geteuid())), c.path)
	case foreign:
		return fmt.Sprintf(": chmod -R go-w %s mends that", c.path)
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf(": chmod -R u+rwX %s mends that", c.path)
	}
	return ""
}

// warnOthers warns of what takes room that is lacking, and is not ours to remove.
func (c *Dir) warnOthers(others []Other, lacking int64) {
	sum := int64(0)
	for _, o := range others {
		sum += o.Bytes
	}
	if sum < lacking || !c.warnedOthers.CompareAndSwap(false, true) {
		return
	}
	names := make([]string, 0, 4)
	for i, o := range others {
		if i == 3 {
			names = append(names, "...")
			break
		}
		names = append(names, o.Path)
	}
	c.Warnf("cache directory %s has no room left: %d bytes of it are not of imgfs, which leaves them alone: %s", c.path, sum, strings.Join(names, ", "))
}

// WarnLocks warns of a file system without locks.
func (c *Dir) WarnLocks() {
	if c.warnedLocks.CompareAndSwap(false, true) {
		c.Warnf("cache directory %s: its file system has no file locks: what is read from it is checked each time, and layers are removed whole to make room; a directory on a local disk does better", c.path)
	}
}
