//go:build linux

package journal

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func newMemory(t testing.TB) *Memory {
	t.Helper()
	m, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// reopen returns the memory as the next server finds it.
func reopen(t testing.TB, m *Memory) *Memory {
	t.Helper()
	fd, err := unix.FcntlInt(m.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	next, err := Open(os.NewFile(uintptr(fd), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	return next
}

func TestRecords(t *testing.T) {
	m := newMemory(t)
	read := func(want string) {
		t.Helper()
		if got, err := reopen(t, m).Read(State); err != nil || string(got) != want {
			t.Errorf("the record is %q, error %v, want %q", got, err, want)
		}
	}
	read("")
	for _, text := range []string{"one", "two, which is longer", "three", ""} {
		if err := m.Write(State, []byte(text)); err != nil {
			t.Fatal(err)
		}
		read(text)
	}
	if got, err := m.Read(Note); got != nil || err != nil {
		t.Errorf("the other record is %q, error %v", got, err)
	}
	if err := m.Write(State, make([]byte, MaxRecord+1)); err == nil {
		t.Error("a record that is too long is written")
	}
	read("")
}

// TestRecordKilled: whichever word of a record is the last that was written, the one before
// is read.
func TestRecordKilled(t *testing.T) {
	m := newMemory(t)
	for _, text := range []string{"the old one", "the one before"} {
		if err := m.Write(State, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	before := append([]byte{}, m.area(State, 0)[:64]...)
	if err := m.Write(State, []byte("the new one, that is longer")); err != nil {
		t.Fatal(err)
	}
	a := m.area(State, 0)
	after := append([]byte{}, a[:64]...)
	order := []struct{ from, to int }{{0, 8}, {lengthAt, sumAt}, {recordHead, 64}, {sumAt, recordHead}}
	copy(a, before)
	for i, step := range order {
		copy(a[step.from:step.to], after[step.from:step.to])
		want := "the one before"
		if i == len(order)-1 {
			want = "the new one, that is longer"
		}
		if got, err := reopen(t, m).Read(State); err != nil || string(got) != want {
			t.Errorf("after step %d the record is %q, error %v, want %q", i, got, err, want)
		}
	}
	a[recordHead]++
	m.area(State, 1)[recordHead]++
	if _, err := reopen(t, m).Read(State); !errors.Is(err, ErrDamaged) {
		t.Errorf("two wrong areas: %v", err)
	}
}

// arrive puts a request in a page, as the kernel does.
func arrive(p Page, id uint64) {
	binary.NativeEndian.PutUint32(p.Request(), inHeader)
	binary.NativeEndian.PutUint64(p.Request()[8:], id)
}

// TestJournalKilled: at each step from before a request is read to after its reply, the
// next server knows whether it is to be answered, and whose fault it may be.
func TestJournalKilled(t *testing.T) {
	m := newMemory(t)
	j := NewJournal(m)
	pending := func(step string, want ...uint64) {
		t.Helper()
		var got []uint64
		for _, p := range NewJournal(reopen(t, m)).Pending() {
			got = append(got, p.Unique())
		}
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%s: pending are %d, want %d", step, got, want)
		}
	}
	p := j.Take()
	pending("nothing was read")
	arrive(p, 8)
	pending("it was read", 8)
	if next := NewJournal(reopen(t, m)).Pending()[0]; next.Blame(3) != 0 {
		t.Error("a request is to blame that nobody has begun")
	}
	p.Begin()
	pending("it was begun", 8)
	next := NewJournal(reopen(t, m)).Pending()[0]
	for range 2 {
		if next.Blame(3) != 3 {
			t.Error("a request that was begun is not to blame once")
		}
	}
	p.Done()
	pending("it was answered")
	p.Reset()
	arrive(p, 10)
	pending("the next was read", 10)
	if p.Blame(1) != 0 {
		t.Error("a request is blamed for the one before it")
	}
	other := j.Take()
	arrive(other, 12)
	pending("two were", 10, 12)
	if got := NewJournal(reopen(t, m)).Take(); got.slot != 2 {
		t.Errorf("the next server reads to page %d, where two are taken", got.slot)
	}
	p.Done()
	j.Give(p)
	if got := j.Take(); got.slot != 0 {
		t.Errorf("page %d is taken, not the lowest", got.slot)
	}
	if ids := j.UnderWay(); len(ids) != 1 || ids[0] != 12 {
		t.Errorf("under way are %d", ids)
	}
}

// TestJournalRush: pages that were used in a rush give their memory back.
func TestJournalRush(t *testing.T) {
	m := newMemory(t)
	j := NewJournal(m)
	var pages []Page
	for i := range 5000 {
		p := j.Take()
		arrive(p, uint64(2*i+2))
		pages = append(pages, p)
	}
	if n := len(NewJournal(reopen(t, m)).Pending()); n != 5000 {
		t.Errorf("%d requests are pending", n)
	}
	for _, p := range pages {
		p.Done()
		j.Give(p)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(m.File().Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if kept := st.Blocks * 512; kept > 2*resident*pageSize {
		t.Errorf("%d bytes stay in memory", kept)
	}
	if n := len(NewJournal(reopen(t, m)).Pending()); n != 0 {
		t.Errorf("%d requests are pending that were answered", n)
	}
}

func TestJournalFull(t *testing.T) {
	m, err := Anonymous()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	j := NewJournal(m)
	var last Page
	for range Slots {
		last = j.Take()
	}
	got := make(chan Page)
	go func() { got <- j.Take() }()
	j.Give(last)
	if p := <-got; p.slot != last.slot {
		t.Errorf("page %d, want %d", p.slot, last.slot)
	}
}

// TestTableKilled: the next server knows what is open, and what is only half so.
func TestTableKilled(t *testing.T) {
	m := newMemory(t)
	table, noted := NewTable(m)
	if len(noted) != 0 {
		t.Errorf("in a new table is %v", noted)
	}
	expect := func(step string, want ...Opened) {
		t.Helper()
		_, got := NewTable(reopen(t, m))
		if len(got) != len(want) {
			t.Fatalf("%s: %+v, want %+v", step, got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: %+v, want %+v", step, got[i], want[i])
			}
		}
	}
	a, _ := table.Add(5, 100)
	expect("opened", Opened{Slot: a, Inode: 5, Unique: 100})
	table.Decide(a, 7)
	expect("decided", Opened{Slot: a, Inode: 5, Unique: 100, Decided: true, ID: 7})
	b, _ := table.Add(6, 102)
	table.Decide(b, 0)
	first := table.Handle(a)
	if slot, ok := table.Slot(first); !ok || slot != a || first == 0 {
		t.Errorf("the handle %#x leads to %d, %t", first, slot, ok)
	}
	table.End(a)
	expect("released", Opened{Slot: a, Inode: 5, Unique: 100, ID: 7, Ending: true}, Opened{Slot: b, Inode: 6, Unique: 102, Decided: true})
	if _, ok := table.Slot(first); ok {
		t.Error("what is released is open")
	}
	table.Remove(a)
	expect("removed", Opened{Slot: b, Inode: 6, Unique: 102, Decided: true})
	next, _ := NewTable(reopen(t, m))
	c, _ := next.Add(8, 104)
	if _, ok := next.Slot(first); c != a || ok {
		t.Errorf("entry %d is used again, and an old handle leads there: %t", c, ok)
	}
	for _, id := range []int32{3, 9, 4} {
		next.Note(id)
	}
	if got := next.Highest(); got != 9 {
		t.Errorf("the highest identifier is %d, want 9", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *Memory)
		want   error
	}{
		"another version":    {func(m *Memory) { m.number(versionOffset).Store(2) }, ErrVersion},
		"another byte order": {func(m *Memory) { m.number(orderOffset).Store(0x04030201) }, ErrVersion},
		"more pages":         {func(m *Memory) { m.number(slotsOffset).Store(Slots + 1) }, ErrDamaged},
		"something else":     {func(m *Memory) { m.mem[0]++ }, ErrDamaged},
	} {
		m := newMemory(t)
		c.change(m)
		if _, err := Open(m.File()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	pipe := [2]int{}
	if err := unix.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[1])
	r := os.NewFile(uintptr(pipe[0]), "pipe")
	defer r.Close()
	if _, err := Open(r); err == nil {
		t.Error("a pipe is taken for a state")
	}
}

// FuzzOpen: whatever is in the memory, a server that finds it there does not crash.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("x"), uint32(recordsOffset))
	f.Add(make([]byte, 100), uint32(pagesOffset))
	f.Add([]byte{40, 0, 0, 0, 15, 0, 0, 0, 9}, uint32(pagesOffset+requestAt))
	f.Add([]byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3}, uint32(tableOffset))
	f.Add([]byte("imgfsrec\x02\x00\x00\x00"), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, at uint32) {
		m := newMemory(t)
		copy(m.mem[at%size:], data)
		fd, err := unix.FcntlInt(m.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), "state")
		next, err := Open(file)
		if err != nil {
			file.Close()
			return
		}
		defer next.Close()
		_, _ = next.Read(State)
		_, _ = next.Read(Note)
		j := NewJournal(next)
		for _, p := range j.Pending() {
			if p.Length() < inHeader || p.Length() > RequestSize {
				t.Errorf("a pending request has %d bytes", p.Length())
			}
			p.Blame(3)
			p.Done()
			j.Give(p)
		}
		if n := len(j.Pending()); n > 0 {
			t.Errorf("%d requests are pending that were answered", n)
		}
		table, open := NewTable(next)
		for _, o := range open {
			table.Remove(o.Slot)
		}
		if _, ok := table.Add(1, 2); !ok {
			t.Error("an empty table is full")
		}
	})
}
