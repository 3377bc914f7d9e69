//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// isSilent checks whether the kernel asks for attributes no more: then it says so of one
// that the server would give.
func isSilent(t *testing.T, dir string, want bool) {
	t.Helper()
	err := getxattr(dir, controlPrefix+"size-1", 10)
	if got := errors.Is(err, unix.EOPNOTSUPP); got != want || err != nil && !got {
		t.Errorf("asking for an attribute of the mount: %v, want unsupported: %v", err, want)
	}
}

// TestEngineXattrs: of a mount for an engine the kernel asks for attributes once, if no inode
// has any, and what is about the mount can be had all the same.
func TestEngineXattrs(t *testing.T) { forEachMode(t, testEngineXattrs) }

func testEngineXattrs(t *testing.T, w who) {
	_, dir := serve(t, w, task{Tree: "plain", Control: true, Engine: true, Provenance: true})
	checkDocuments(t, dir)
	isSilent(t, dir, false)
	path := filepath.Join(dir, "srv/index")
	for _, name := range []string{"user.x", layerAttr, "security.selinux"} {
		if err := getxattr(path, name, 10); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("%s: %v, want %v", name, err, unix.EOPNOTSUPP)
		}
	}
	isSilent(t, dir, true)
	if names := xattrNames(t, path); len(names) != 0 {
		t.Errorf("%s lists %q", path, names)
	}
	checkDocuments(t, dir)
	for _, c := range []struct {
		path, name string
		want       error
	}{
		{dir, ownPrefix + "none", ErrNoControl}, {dir, ownPrefix + "size-65537", unix.E2BIG}, {dir, "trusted.x", ErrNoControl},
		{filepath.Join(dir, "srv"), ownPrefix + "none", ErrNoControl}, // it is the mount that is asked
	} {
		m, err := MountOf(t.Context(), c.path)
		if err == nil {
			_, err = m.Control(t.Context(), c.name)
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s of %s: %v, want %v", c.name, c.path, err, c.want)
		}
	}
}

// checkDocuments asks a mount for documents of many lengths.
func checkDocuments(t *testing.T, dir string) {
	t.Helper()
	m, err := MountOf(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	const piece = controlBlock - controlPiece
	for _, size := range []int{0, 1, piece - 1, piece, piece + 1, 2 * piece, 2*piece + 1, xattrMax} {
		got, err := m.Control(t.Context(), fmt.Sprint(ownPrefix, "size-", size))
		if err != nil || len(got) != size {
			t.Errorf("a document of %d bytes: %d bytes, %v", size, len(got), err)
			continue
		}
		for i, b := range got {
			if b != patternAt(int64(i)) {
				t.Errorf("a document of %d bytes is wrong from byte %d on", size, i)
				break
			}
		}
	}
}

// TestEngineAnswers: with Xattrs nothing is turned off either, and programs that compare files
// are not told that capabilities are not supported.
func TestEngineAnswers(t *testing.T) {
	for _, task := range []task{{Tree: "plain", Engine: true, Xattrs: true}, {Tree: "acl", Engine: true}} {
		_, dir := serve(t, mounters(t)[0], task)
		for range 2 {
			if err := getxattr(dir, capabilityAttr, 10); !errors.Is(err, unix.ENODATA) {
				t.Errorf("%+v: security.capability: %v, want ENODATA", task, err)
			}
		}
	}
}

// TestEngineKeepsXattrs: where an inode has attributes nothing is turned off.
func TestEngineKeepsXattrs(t *testing.T) {
	_, dir := serve(t, mounters(t)[0], task{Tree: "sample", Control: true, Engine: true, Provenance: true})
	for range 2 {
		if err := getxattr(filepath.Join(dir, "empty"), "user.x", 10); !errors.Is(err, unix.ENODATA) {
			t.Errorf("user.x: %v, want %v", err, unix.ENODATA)
		}
	}
	isSilent(t, dir, false)
	if got := xattrOf(t, filepath.Join(dir, "etc"), "user.of-a-directory"); got != "d" {
		t.Errorf("an attribute of the image is %q", got)
	}
	if got := xattrOf(t, filepath.Join(dir, "mega"), offsetAttr); got != "12345" {
		t.Errorf("%s is %q", offsetAttr, got)
	}
}

// TestEngineEarly: a mount that has no tree yet tells of itself, and says that it has no
// attributes when it has one.
func TestEngineEarly(t *testing.T) {
	c, dir := serve(t, mounters(t)[0], task{Tree: "plain", Control: true, Engine: true, Early: true})
	checkDocuments(t, dir)
	c.send("show")
	c.expect("shown <nil>")
	if err := getxattr(filepath.Join(dir, "srv"), "user.x", 10); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("user.x: %v, want %v", err, unix.EOPNOTSUPP)
	}
	isSilent(t, dir, true)
	checkDocuments(t, dir)
}

// TestEngineSucceeds: another server answers the ioctl, also for one that has no attributes
// since the first server said so.
func TestEngineSucceeds(t *testing.T) {
	h := keep(t, mounters(t)[0], task{Tree: "plain", Control: true, Engine: true})
	_ = getxattr(filepath.Join(h.dir, "srv"), "user.x", 10)
	isSilent(t, h.dir, true)
	h.kill()
	h.mustNext(9)
	isSilent(t, h.dir, true)
	checkDocuments(t, h.dir)
}

// controlRole asks a mount for a document.
func controlRole(k task) error {
	m, err := MountOf(context.Background(), k.Dir)
	if err != nil {
		return err
	}
	if b, err := m.Control(context.Background(), k.Name); err != nil {
		say("%v", err)
	} else {
		say("%d byte", len(b))
	}
	return nil
}

// TestEngineControlIsForTheOwner is TestControlIsForTheOwner where the kernel may name no
// users, by attributes and by the ioctl.
func TestEngineControlIsForTheOwner(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	for _, c := range []struct {
		mounter, uid int
		told         bool
	}{
		{0, 0, true}, {0, nobody, false}, {nobody, 0, true}, {nobody, nobody, true}, {nobody, 1, false},
	} {
		w := who{uid: c.mounter}
		if c.mounter != 0 {
			w.wrap = []string{"setpriv", "--reuid=" + strconv.Itoa(nobody), "--inh-caps=+sys_admin", "--ambient-caps=+sys_admin", "--"}
		}
		_, dir := serve(t, w, task{Tree: "plain", Control: true, Engine: true, AllowOther: true})
		for _, silent := range []bool{false, true} {
			if silent {
				_ = getxattr(filepath.Join(dir, "srv"), "user.x", 10)
				isSilent(t, dir, true)
			}
			asker := start(t, c.uid, task{Role: "control", Dir: dir, Name: ownPrefix + "size-1"})
			if got := asker.next(); (got == "1 byte") != c.told || !c.told && !strings.HasPrefix(got, ErrPermission.Error()) {
				t.Errorf("mounted by user %d, silent %v: user %d gets %q, want it to be told: %v", c.mounter, silent, c.uid, got, c.told)
			}
			_ = asker.cmd.Wait()
		}
	}
}

// TestUserOf finds the user of a caller whom the kernel does not name.
func TestUserOf(t *testing.T) {
	own := ownThreads()
	if own.proc == "" {
		t.Skip("/proc is that of others")
	}
	thread := uint32(unix.Gettid())
	for _, c := range []struct {
		name    string
		threads threads
		caller  fuse.Caller
		want    uint32
	}{
		{"named", own, fuse.Caller{Owner: fuse.Owner{Uid: 7}, Pid: thread}, 7},
		{"not named", own, fuse.Caller{Owner: fuse.Owner{Uid: noID}, Pid: thread}, uint32(unix.Geteuid())},
		{"gone", own, fuse.Caller{Owner: fuse.Owner{Uid: noID}, Pid: 1<<31 - 1}, noID},
		{"elsewhere", own, fuse.Caller{Owner: fuse.Owner{Uid: noID}}, noID},
		{"without /proc", threads{}, fuse.Caller{Owner: fuse.Owner{Uid: noID}, Pid: thread}, noID},
	} {
		if got := c.threads.userOf(&c.caller); got != c.want {
			t.Errorf("%s: user %d, want %d", c.name, got, c.want)
		}
	}
}

// ask sends a block to a file system without a mount.
func ask(r *rawFS, node uint64, cmd uint32, block []byte) (answer []byte, status fuse.Status) {
	in := &fuse.IoctlIn{InHeader: fuse.InHeader{NodeId: node, Caller: fuse.Caller{Owner: fuse.Owner{Uid: r.owner}}}, Cmd: cmd}
	answer = make([]byte, controlBlock)
	return answer, r.Ioctl(nil, in, block, &fuse.IoctlOut{}, answer)
}

func blockOf(number uint64, off uint32, name string) []byte {
	b := make([]byte, controlBlock)
	binary.NativeEndian.PutUint64(b, number)
	binary.NativeEndian.PutUint32(b[controlOffset:], off)
	copy(b[controlPiece:], name)
	return b
}

// TestIoctl asks for what there is not.
func TestIoctl(t *testing.T) {
	r := newRawFS(treeNamed(t, "plain"), &Options{Control: control(nil), Engine: true})
	name := ownPrefix + "size-5000"
	for _, c := range []struct {
		name  string
		node  uint64
		cmd   uint32
		block []byte
		want  unix.Errno
	}{
		{"another inode", 2, controlIoctl, blockOf(0, 0, name), unix.ENOTTY},
		{"another ioctl", 1, controlIoctl + 1, blockOf(0, 0, name), unix.ENOTTY},
		{"a short block", 1, controlIoctl, blockOf(0, 0, name)[:100], unix.ENOTTY},
		{"no name", 1, controlIoctl, blockOf(0, 0, ""), unix.ENODATA},
		{"a long name", 1, controlIoctl, blockOf(0, 0, strings.Repeat("x", controlBlock)), unix.ENODATA},
		{"a name of the image", 1, controlIoctl, blockOf(0, 0, "user.x"), unix.ENODATA},
		{"a document that is not there", 1, controlIoctl, blockOf(7, 0, name), unix.ESTALE},
	} {
		if _, got := ask(r, c.node, c.cmd, c.block); got != fuse.Status(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	first, status := ask(r, 1, controlIoctl, blockOf(0, 77, name))
	number := binary.NativeEndian.Uint64(first)
	if status != fuse.OK || number == 0 || binary.NativeEndian.Uint32(first[controlLength:]) != 5000 || binary.NativeEndian.Uint32(first[controlOffset:]) != 0 {
		t.Fatalf("the first piece: %v, %x", status, first[:controlPiece])
	}
	if _, got := ask(r, 1, controlIoctl, blockOf(number, 5001, "")); got != fuse.Status(unix.ESTALE) {
		t.Errorf("behind the end: %v, want %v", got, unix.ESTALE)
	}
	for range keptDocuments {
		next, _ := ask(r, 1, controlIoctl, blockOf(0, 0, name))
		number = binary.NativeEndian.Uint64(next)
	}
	if _, got := ask(r, 1, controlIoctl, blockOf(binary.NativeEndian.Uint64(first), 2000, "")); got != fuse.Status(unix.ESTALE) {
		t.Errorf("the oldest of too many documents: %v, want %v", got, unix.ESTALE)
	}
	if n := len(r.documents.kept); n != keptDocuments {
		t.Errorf("%d documents are kept, want %d", n, keptDocuments)
	}
	last, status := ask(r, 1, controlIoctl, blockOf(number, 4999, ""))
	if status != fuse.OK || !bytes.Equal(last[controlPiece:controlPiece+2], []byte{patternAt(4999), 0}) || len(r.documents.kept) != keptDocuments-1 {
		t.Errorf("the last piece: %v, %x; %d documents are kept", status, last[:controlPiece+2], len(r.documents.kept))
	}
}
