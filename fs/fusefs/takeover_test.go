//go:build linux

package fusefs

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs/fusefs/internal/journal"
)

// newMemfd returns a file without a name.
func newMemfd(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("imgfs-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	t.Cleanup(func() { f.Close() })
	return f
}

// requestOf is a request as the kernel sends it.
func requestOf(op uint32, id, node uint64, body int) []byte {
	b := make([]byte, inHeader+body)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint32(b[opcodeOffset:], op)
	binary.NativeEndian.PutUint64(b[uniqueOffset:], id)
	binary.NativeEndian.PutUint64(b[nodeOffset:], node)
	return b
}

// initRequest is INIT of a kernel that can do everything.
func initRequest() []byte {
	b := requestOf(opInit, 2, 0, int(unsafe.Sizeof(fuse.InitIn{}))-inHeader)
	in := (*fuse.InitIn)(unsafe.Pointer(&b[0]))
	in.Major, in.Minor, in.MaxReadAhead, in.Flags, in.Flags2 = 7, 41, 128<<10, ^uint32(0), ^uint32(0)
	return b
}

const opGetattr = 3

// A leaving is what a server has left that was killed: requests that it was about to answer,
// each with what spoke against it before.
type leaving struct {
	c       *deviceConn
	replies *os.File
}

func newLeaving(t *testing.T, tries ...uint32) *leaving {
	t.Helper()
	k, err := NewKept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.memory.Close)
	j := journal.NewJournal(k.memory)
	for i, n := range tries {
		p := j.Take()
		copy(p.Request(), requestOf(opGetattr, uint64(2*i+4), fuse.FUSE_ROOT_ID, 16))
		if n > 0 {
			p.Begin()
			p.Blame(n)
		}
		p.Begin()
	}
	l := &leaving{replies: newMemfd(t)}
	if _, err := unix.FcntlInt(l.replies.Fd(), unix.F_SETFL, unix.O_APPEND); err != nil { // two may write at once
		t.Fatal(err)
	}
	opts := &Options{Kept: k, Logf: t.Logf}
	raw := newRawFS(treeNamed(t, "plain"), opts)
	raw.gone = func() bool { return false }
	ps := fuse.NewProtocolServer(raw, serverOptions(raw, opts))
	l.c = &deviceConn{answerer: answerer{raw: raw, opts: opts, ps: ps}, fd: int(l.replies.Fd()),
		memory: k.memory, journal: journal.NewJournal(k.memory), done: make(chan struct{})}
	l.c.Answer(initRequest(), make([]byte, outHeader), make([]byte, smallReply))
	return l
}

// answered returns which requests were answered, in this order, and the errors.
func (l *leaving) answered(t *testing.T) (ids []uint64, errnos []int32) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/fd/" + strconv.Itoa(l.c.fd))
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		ids = append(ids, unique(b))
		errnos = append(errnos, int32(binary.NativeEndian.Uint32(b[4:])))
		b = b[binary.NativeEndian.Uint32(b):]
	}
	return ids, errnos
}

// TestTakeOverSuspects: requests against which something speaks are begun one after the
// other, those first against which the least does; others are begun at once.
func TestTakeOverSuspects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeaving(t, 100, 0, 300, 200)
		l.c.takeOver(int(unix.SIGKILL))
		time.Sleep(apart / 2)
		for n := 2; n <= 4; n++ {
			synctest.Wait()
			ids, _ := l.answered(t)
			slices.Sort(ids[:min(2, len(ids))]) // these two are begun at once
			if want := []uint64{4, 6, 10, 8}[:n]; !slices.Equal(ids, want) {
				t.Errorf("after %v the requests %d are answered, want %d", time.Duration(n-2)*apart+apart/2, ids, want)
			}
			time.Sleep(apart)
		}
		l.c.loops.Wait()
	})
}

// TestTakeOverCondemns: how many deaths a request is let off with.
func TestTakeOverCondemns(t *testing.T) {
	for _, c := range []struct {
		name      string
		died      int
		tries     uint32
		condemned bool
	}{
		{"the last kill but one", int(unix.SIGKILL), condemned - blameKill - 1, false},
		{"the last kill", int(unix.SIGKILL), condemned - blameKill, true},
		{"nobody knows", -1, condemned - blameKill, true},
		{"a first crash", int(unix.SIGSEGV), 0, false},
		{"a second crash", int(unix.SIGSEGV), blameCrash, true},
		{"a second panic", 0, blameCrash, true},
		{"an upgrade", Replaced, condemned - 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLeaving(t, c.tries)
				l.c.takeOver(c.died)
				l.c.loops.Wait()
				ids, errnos := l.answered(t)
				want := int32(0)
				if c.condemned {
					want = -int32(unix.EIO)
				}
				if len(ids) != 1 || errnos[0] != want {
					t.Errorf("the requests %d were answered with %d, want %d", ids, errnos, want)
				}
				refused := l.c.isRefused(requestOf(opGetattr, 100, fuse.FUSE_ROOT_ID, 16))
				if kept := l.c.opts.Kept.now().Refused; refused != c.condemned || len(kept) > 0 != c.condemned {
					t.Errorf("later ones are refused: %v, and noted are %v", refused, kept)
				}
				if n := len(l.c.journal.Pending()); n != 0 {
					t.Errorf("%d requests are still to be answered", n)
				}
			})
		})
	}
}

// FuzzKeptState: whatever a state says, a successor does not crash, and serves nothing but
// the tree that it knows.
func FuzzKeptState(f *testing.F) {
	state := keptState{Mount: keptMount{Dir: "/mnt", Device: "0:39"}, Shown: true, Why: "none", Init: initRequest(), Identity: "one"}
	good, err := json.Marshal(state)
	if err != nil {
		f.Fatal(err)
	}
	state.Init = state.Init[:inHeader]
	short, _ := json.Marshal(state)
	f.Add(good)
	f.Add(short)
	f.Add([]byte(`{"init":"` + string(make([]byte, 3)) + `"}`))
	f.Add([]byte(`{"init":null,"reply":null,"refused":[{"op":4294967295,"node":18446744073709551615}]}`))
	f.Add([]byte(`[]`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := journal.New()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Write(journal.State, text); err != nil {
			t.Skip()
		}
		device, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer device.Close()
		k, err := OpenKept(device, m.File())
		if err != nil {
			m.Close()
			if !errors.Is(err, ErrKept) {
				t.Errorf("%v, want ErrKept", err)
			}
			return
		}
		defer k.memory.Close()
		p, err := Prepare(t.Context(), k, treeNamed(t, "plain"), &Options{Identity: "one", Passthrough: Off})
		if err != nil {
			if !errors.Is(err, ErrKept) && !errors.Is(err, ErrChanged) {
				t.Errorf("%v, want ErrKept or ErrChanged", err)
			}
			return
		}
		defer p.Close()
		if now := k.now(); now.Identity != "one" || !now.Shown {
			t.Errorf("it goes on with %+v", now)
		}
	})
}

// TestOpenKeptRefuses: a state of another version, a damaged one, and none are told from one that
// can be gone on with.
func TestOpenKeptRefuses(t *testing.T) {
	state := keptState{Mount: keptMount{Dir: "/mnt"}, Shown: true, Init: initRequest(), Reply: make([]byte, 80)}
	for _, c := range []struct {
		name string
		at   int64
		text string
		want error
	}{
		{"good", -1, "", nil},
		{"another version", 8, "\x09", journal.ErrVersion},
		{"a damaged record", 4096 + 40, "!!!", journal.ErrDamaged},
		{"no state", 0, "IMGFSREC", journal.ErrDamaged},
	} {
		k, err := NewKept()
		if err != nil {
			t.Fatal(err)
		}
		if err := k.update(func(s *keptState) { *s = state }); err != nil {
			t.Fatal(err)
		}
		_, file := k.Files()
		if c.at >= 0 {
			if _, err := file.WriteAt([]byte(c.text), c.at); err != nil {
				t.Fatal(err)
			}
		}
		again, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(file.Fd())), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		next, err := OpenKept(newMemfd(t), again)
		switch {
		case err == nil:
			if c.want != nil {
				t.Errorf("%s: it is opened", c.name)
			}
			if got := next.Dir(); got != "/mnt" {
				t.Errorf("the mount is %q", got)
			}
			next.memory.Close()
		case c.want == nil || !errors.Is(err, ErrKept) || !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		again.Close()
		k.memory.Close()
	}
}
