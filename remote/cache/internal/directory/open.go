package directory

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
)

const (
	versionPrefix = "imgfs cache "
	version       = 1
	maxVersion    = 64 // bytes of the file
)

// A DirError says why a directory is not used as a cache.
type DirError struct {
	Dir  string
	Why  string
	Hint string // what can be typed to mend it; "" if nothing can
	Err  error  // of the system, if it is that
}

func (e *DirError) Error() string { return "cache directory " + e.Dir + e.Why }

// Unwrap returns Err.
func (e *DirError) Unwrap() error { return e.Err }

// dirError says in plain words why path cannot be used.
func dirError(path string, err error) *DirError {
	var pe *fs.PathError
	var refused *beneath.RefusedError
	var unfit *DirError
	switch {
	case errors.As(err, &unfit):
		return unfit
	case errors.As(err, &refused) && !errors.Is(err, fs.ErrPermission):
		return &DirError{Dir: refused.Path, Why: ": " + refused.Why(), Err: refused.Err}
	case errors.As(err, &refused):
		path, err = refused.Path, refused.Err
	case errors.As(err, &pe):
		// MkdirAll names the ancestor that it failed at.
		path, err = pe.Path, pe.Err
	}
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return &DirError{Dir: path, Why: " is not writable: " + err.Error(), Err: err}
	case errors.Is(err, fs.ErrExist):
		err = unix.ENOTDIR
	}
	return &DirError{Dir: path, Why: ": " + err.Error(), Err: err}
}

// openDir opens a cache directory, and makes it and its parts if need be.
// docs/cache-format.md, "What is a cache directory", says which are. The error
// readOnly is why nothing can be written to one that can be read.
//
// The error err may be that the disk is full: then what is there is returned
// all the same, which may be nothing.
func openDir(path string, opts *beneath.Options) (d *beneath.Dir, readOnly, err error) {
	o := opening{path: path}
	if err := o.mkdir(); err != nil {
		return beneath.New(path, nil, opts), nil, dirError(path, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		var st unix.Stat_t
		if errors.Is(err, fs.ErrPermission) && unix.Stat(path, &st) == nil && int64(st.Uid) != int64(os.Geteuid()) {
			return nil, nil, o.refuseOwner("", &st)
		}
		return nil, nil, dirError(path, err)
	}
	o.d = beneath.New(path, f, opts)
	readOnly, err = o.prepare()
	if err != nil && !IsFull(err) {
		o.d.Close()
		return nil, nil, err
	}
	return o.d, readOnly, err
}

// An opening is a directory that may become a cache.
type opening struct {
	path string
	d    *beneath.Dir
}

func (o *opening) refuse(hint, format string, args ...any) error {
	return &DirError{Dir: o.path, Why: fmt.Sprintf(format, args...), Hint: hint}
}

// mkdir makes the directory, and those above it, if they are not there. Root
// makes nothing in a directory of somebody else, who could not use it: a .cache
// of root's would be in the way of all programs of that user.
func (o *opening) mkdir() error {
	if os.Geteuid() != 0 {
		return os.MkdirAll(o.path, 0o700)
	}
	there, rest := filepath.Clean(o.path), "."
	for isMissing(there) && there != filepath.Dir(there) {
		there, rest = filepath.Dir(there), filepath.Join(filepath.Base(there), rest)
	}
	if rest == "." {
		return nil
	}
	above, err := beneath.Open(there, nil)
	if err != nil {
		return err
	}
	defer above.Close()
	st, err := above.Stat(".")
	if err != nil {
		return err
	}
	if !beneath.Trusted(st.Uid) {
		owner := userName(st.Uid)
		return o.refuse("run imgfs as "+owner, " is not there, and %s belongs to %s: root makes nothing in it", there, owner)
	}
	return above.MkdirAll(rest)
}

// isMissing reports whether a path, through links, leads to nothing.
func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// prepare checks the directory, and makes what is missing of it.
func (o *opening) prepare() (readOnly, err error) {
	st, err := o.d.Stat(".")
	if err != nil {
		return nil, dirError(o.path, err)
	}
	if err := o.checkOwner("", st); err != nil {
		return nil, err
	}
	marked, err := o.checkVersion()
	if err != nil {
		return nil, err
	}
	if err := o.checkParts(); err != nil {
		return nil, err
	}
	if readOnly := o.whyReadOnly(st); readOnly != nil {
		if marked {
			return readOnly, nil
		}
		return nil, readOnly
	}
	if !marked {
		if err := o.checkUnmarked(); err != nil {
			return nil, err
		}
	}
	return nil, o.make(marked)
}

// whyReadOnly returns why nothing can be written to the directory.
func (o *opening) whyReadOnly(st *unix.Stat_t) error {
	if st.Uid != uint32(os.Geteuid()) {
		return o.refuseOwner("", st)
	}
	if err := o.d.Writable("."); err != nil {
		return dirError(o.path, err)
	}
	return nil
}

// checkOwner refuses a directory, or a part of it, that somebody else has a say
// in.
func (o *opening) checkOwner(part string, st *unix.Stat_t) error {
	if !beneath.Trusted(st.Uid) {
		return o.refuseOwner(part, st)
	}
	if beneath.Safe(st) != nil {
		return o.refuse("chmod -R go-w "+o.path+", if what is in it is yours", "%s may be written by other users (mode %04o)", of(part), st.Mode&0o7777)
	}
	return nil
}

func (o *opening) refuseOwner(part string, st *unix.Stat_t) error {
	owner := userName(st.Uid)
	hint := "run imgfs as " + owner
	if part != "" {
		hint = "sudo chown -R " + shortName(uint32(os.Geteuid())) + " " + o.path
	}
	return o.refuse(hint, "%s belongs to %s, and imgfs runs as %s", of(part), owner, userName(uint32(os.Geteuid())))
}

// of names a part behind the name of the directory.
func of(part string) string {
	if part == "" {
		return ""
	}
	return ": its " + part
}

// checkParts refuses a directory of which a part is somebody else's, or not a
// directory at all. One that root made in a user's cache is let pass: what cannot
// be read of it counts as missing.
func (o *opening) checkParts() error {
	var wrong error
	refuse := func(err error) {
		if wrong == nil {
			wrong = err
		}
	}
	err := o.d.Walk(".", func(name string, st *unix.Stat_t) bool {
		switch {
		case name == ".":
			return true
		case !isPart(name):
		case !isDir(st):
			refuse(notDir(o.d.Path(name), st))
		default:
			if err := o.checkOwner(name, st); err != nil {
				refuse(err)
			}
		}
		return byDigest(name) != kindOther
	}, func(name string, err error) {
		if errors.Is(err, unix.EXDEV) {
			refuse(dirError(o.path, &beneath.RefusedError{Path: o.d.Path(name), Err: err}))
		}
	})
	if err != nil {
		return dirError(o.path, err)
	}
	return wrong
}

func notDir(path string, st *unix.Stat_t) error {
	why := unix.ENOTDIR
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		why = unix.ELOOP
	}
	return dirError(path, &beneath.RefusedError{Path: path, Err: why})
}

// checkVersion refuses a directory of another format, and reports whether
// the directory says its format. An empty file, which a crash of the machine may
// leave, says nothing, nor does one that cannot be read.
func (o *opening) checkVersion() (bool, error) {
	data, _, err := o.d.ReadFile(VersionFile, maxVersion)
	foreign := o.refuse("", ": file %s is not that of an imgfs cache", VersionFile)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(data) == 0:
		return false, nil
	case errors.Is(err, beneath.ErrTooBig):
		return false, foreign
	case err != nil:
		return false, dirError(o.path, err)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(string(data)), versionPrefix)
	n, err := strconv.ParseUint(text, 10, 32)
	switch {
	case !ok || err != nil || n == 0:
		return false, foreign
	case n > version:
		return false, o.refuse("", " has format %d, which is newer than this imgfs knows (%d)", n, version)
	}
	return true, nil
}

// checkUnmarked refuses a directory without a version that has anything in it
// but what a cache is left with when the disk was full, or the machine crashed,
// before it got its version.
func (o *opening) checkUnmarked() error {
	inv, err := Walk(o.d)
	if err != nil {
		return dirError(o.path, err)
	}
	stranger, doubtful, proven := "", "", false
	if len(inv.others) > 0 {
		stranger = inv.others[0].Path
	}
	for _, f := range inv.Files {
		switch o.whose(f) {
		case ours:
			proven = true
		case notOurs:
			stranger = cmp.Or(stranger, f.Name)
		case nobodys:
			doubtful = cmp.Or(doubtful, f.Name)
		}
	}
	if !proven {
		stranger = cmp.Or(stranger, doubtful)
	}
	if stranger == "" {
		return nil
	}
	if marked, err := o.checkVersion(); marked || err != nil {
		return err // another process makes a cache of it at this moment
	}
	return o.refuse("name a directory that is new or empty", " is not empty, and not a cache of imgfs: it has %s, and no file %s", stranger, VersionFile)
}

// A belonging says what a file tells of who made it.
type belonging int

const (
	harmless belonging = iota // nothing, and it may stay: it is empty, or is never removed
	ours                      // it begins, or ends, as imgfs alone writes it
	notOurs                   // it does not
	nobodys                   // nothing: imgfs writes there what others have written
)

// indexMagic begins a layer index: docs/index-format.md.
const indexMagic = "imgfsidx"

// whose says whether imgfs has made a file. A name alone proves nothing: an OCI
// layout has its blobs under the very names that a cache has.
func (o *opening) whose(f found) belonging {
	if f.Size == 0 {
		return harmless
	}
	file, err := o.d.Open(f.Name)
	if err != nil {
		var refused *beneath.RefusedError
		switch {
		case errors.As(err, &refused) && errors.Is(err, fs.ErrPermission) && refused.UID == 0:
			if f.Kind == KindSelf {
				return ours // root has left it
			}
			return nobodys
		case !errors.As(err, &refused) && errors.Is(err, fs.ErrNotExist):
			return harmless // gone meanwhile
		}
		return notOurs
	}
	defer file.Close()
	var p [len(versionPrefix)]byte
	n, _ := file.ReadAt(p[:], 0)
	begin := string(p[:n])
	switch {
	case f.Name == LogName, f.Name == oldLogName, f.Name == LedgerName && strings.Trim(begin, "\x00") == "":
		return harmless
	case f.Name == LedgerName:
		return oursIf(strings.HasPrefix(begin, ledgerMagic))
	case f.Kind == KindSelf, f.Kind == kindOwned && strings.HasPrefix(f.Name, Tmp):
		return oursIf(begin == versionPrefix)
	case f.Kind == KindBlob:
		_, _, ok := blobfile.ReadFooter(file)
		return oursIf(ok)
	case f.Kind == KindIndex:
		return oursIf(strings.HasPrefix(begin, indexMagic))
	}
	return nobodys
}

func oursIf(is bool) belonging {
	if is {
		return ours
	}
	return notOurs
}

// make makes what is missing of the directory.
func (o *opening) make(marked bool) error {
	for _, part := range []string{Tmp, Refs, Blobs + "/sha256", Meta + "/sha256"} {
		if err := o.d.MkdirAll(part); err != nil && !IsRefused(err) {
			return dirError(o.path, err)
		}
	}
	if marked {
		return nil
	}
	return writeVersion(o.d)
}

// writeVersion makes a directory a cache.
func writeVersion(d *beneath.Dir) error {
	text := versionPrefix + strconv.Itoa(version) + "\n"
	if err := WriteFile(d, VersionFile, []byte(text)); err != nil {
		return dirError(d.Path("."), err)
	}
	return nil
}

// userName says who a user is: alice (uid 1000).
func userName(uid uint32) string {
	name := shortName(uid)
	if number := strconv.FormatUint(uint64(uid), 10); name != number {
		return name + " (uid " + number + ")"
	}
	return "uid " + name
}

// shortName is the name of a user, or the number of one who has none.
func shortName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}
