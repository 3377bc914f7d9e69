package profile

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// reads are the first n grains of each path, read one after the other.
func reads(n int64, paths ...string) (all []Read) {
	for i, p := range paths {
		all = append(all, Read{Path: p, Size: n * Grain, After: time.Duration(i) * 10 * time.Millisecond})
	}
	return all
}

// later are reads that come after a time.
func later(d time.Duration, all []Read) []Read {
	all = slices.Clone(all)
	for i := range all {
		all[i].After += d
	}
	return all
}

// paths are those of reads, each once, with how much of it is read.
func paths(all []Read) map[string]int64 {
	got := map[string]int64{}
	for _, r := range all {
		got[r.Path] += r.Size / Grain
	}
	return got
}

var day = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// TestAdd: runs that read much the same are one start; what only some of them read has a
// smaller share, and is forgotten in the end. Others are other starts.
func TestAdd(t *testing.T) {
	t.Parallel()
	p := New("r", "linux/amd64")
	common := []string{"/lib/libc.so", "/usr/bin/node", "/lib/libnode.so"}
	p.Add(reads(8, append(common, "/app/old.js")...), day)
	p.Add(reads(8, "/usr/bin/python3", "/lib/libpython.so"), day.Add(time.Hour))
	p.Add(reads(8, append(common, "/app/new.js")...), day.Add(time.Hour))
	if len(p.Starts) != 2 || p.Starts[0].Runs != 2 || !p.Starts[0].Last.Equal(day.Add(time.Hour)) || p.Starts[0].Files() != 5 {
		t.Fatalf("got %+v", p.Starts)
	}
	share := func() map[string]int {
		got := map[string]int{}
		for _, r := range p.Starts[0].Reads {
			got[r.Path] = r.Share
		}
		return got
	}
	if got, want := share(), map[string]int{"/lib/libc.so": 100, "/usr/bin/node": 100, "/lib/libnode.so": 100, "/app/old.js": 50, "/app/new.js": 50}; !maps.Equal(got, want) {
		t.Errorf("shares are %v, want %v", got, want)
	}
	for i := range 10 {
		p.Add(reads(8, append(common, "/app/new.js")...), day.Add(time.Duration(3+i)*time.Hour))
	}
	if got := share(); got["/app/old.js"] != 0 || got["/app/new.js"] < 90 || len(got) != 4 {
		t.Errorf("shares are %v", got)
	}
	for i := range MaxStarts {
		p.Add(reads(8, fmt.Sprintf("/bin/%d", i), "/lib/other.so"), day.Add(time.Duration(100+i)*time.Hour))
	}
	if len(p.Starts) != MaxStarts || p.Starts[0].Reads[0].Path != fmt.Sprintf("/bin/%d", MaxStarts-1) {
		t.Errorf("got %d starts, the first of %s", len(p.Starts), p.Starts[0].Reads[0].Path)
	}
}

// TestAddPauses: what is read after a pause is a start of its own, and what is too small
// for one is none.
func TestAddPauses(t *testing.T) {
	t.Parallel()
	p := New("r", "")
	run := reads(8, "/bin/sh", "/lib/libc.so")
	run = append(run, later(20*time.Second, reads(1, "/etc/passwd"))...)
	run = append(run, later(time.Minute, reads(9, "/usr/bin/node", "/lib/libnode.so"))...)
	p.Add(run, day)
	if len(p.Starts) != 2 || p.Starts[1].Reads[0].After != 0 || p.Starts[1].Bytes(0) != 18*Grain {
		t.Errorf("got %+v", p.Starts)
	}
	p.Add([]Read{{Path: "relative", Size: 99 * Grain}, {Path: "/a", Off: 1, Size: 99 * Grain}, {Path: "/a", Size: MaxStartBytes + Grain}}, day)
	if len(p.Starts) != 2 {
		t.Errorf("got %+v", p.Starts)
	}
}

// TestOrder: reads come back in the order in which they were needed, neighbours as one.
func TestOrder(t *testing.T) {
	t.Parallel()
	p := New("r", "")
	var run []Read
	for i, at := range []int64{40, 41, 0, 7, 8, 9, 2} {
		run = append(run, Read{Path: "/lib/a", Off: at * Grain, Size: 2 * Grain, After: time.Duration(i) * time.Millisecond})
	}
	p.Add(run, day)
	var got [][2]int64
	for _, r := range p.Starts[0].Reads {
		got = append(got, [2]int64{r.Off / Grain, r.Size / Grain})
	}
	if want := [][2]int64{{40, 3}, {0, 2}, {7, 4}, {2, 2}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestChooser: with one start all of it comes at once. With several ones what they have in
// common does, and the rest of one when its mark is read.
func TestChooser(t *testing.T) {
	t.Parallel()
	libs := []string{"/lib/ld.so", "/lib/libc.so"}
	node, python := append(slices.Clone(libs), "/usr/bin/node", "/lib/libnode.so"), append(slices.Clone(libs), "/usr/bin/python3", "/lib/libpython.so", "/lib/os.py")
	p := New("r", "")
	p.Add(reads(8, node...), day)
	c := NewChooser(p)
	if got := paths(c.First()); len(got) != 4 {
		t.Errorf("of one start come %v", got)
	}
	if got := c.Read("/usr/bin/node"); got != nil {
		t.Errorf("it comes twice: %v", got)
	}
	p.Add(reads(8, "/usr/bin/go", "/usr/lib/go/compile", "/usr/lib/go/link"), day.Add(time.Hour))
	p.Add(reads(8, python...), day.Add(time.Hour))
	if len(p.Starts) != 3 {
		t.Fatalf("got %+v", p.Starts)
	}
	c = NewChooser(p)
	first := c.First()
	if got, want := paths(first), map[string]int64{"/lib/ld.so": 8, "/lib/libc.so": 8}; !maps.Equal(got, want) {
		t.Errorf("first come %v, want %v", got, want)
	}
	if got := c.Read("/lib/libc.so"); got != nil {
		t.Errorf("what all read marks none: %v", got)
	}
	if got, want := paths(c.Read("/usr/bin/node")), map[string]int64{"/usr/bin/node": 8, "/lib/libnode.so": 8}; !maps.Equal(got, want) {
		t.Errorf("then come %v, want %v", got, want)
	}
	if got := c.Read("/usr/bin/node"); got != nil {
		t.Errorf("it comes twice: %v", got)
	}
	if got := c.Read("/etc/passwd"); got != nil {
		t.Errorf("of another file come %v", got)
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	p := New("docker.io/library/node", "linux/amd64")
	p.Add(reads(8, "/usr/bin/node", "/lib/na\xffme", "/lib/libc.so"), day)
	p.Add(reads(9, "/usr/bin/go", "/a\"b\n"), day.Add(time.Hour))
	text := p.Encode()
	got, err := Decode(bytes.NewReader(text))
	if err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%v: got\n%+v\nwant\n%+v\nfrom %s", err, got, p, text)
	}
	empty, err := Decode(bytes.NewReader(New("r", "p").Encode()))
	if err != nil || empty.Repository != "r" || empty.Platform != "p" || len(empty.Starts) != 0 {
		t.Errorf("got %+v, %v", empty, err)
	}
}

// TestEncodeBounds: what is written can be read, whatever was noted: what is too much is left
// out at the end.
func TestEncodeBounds(t *testing.T) {
	t.Parallel()
	for name, long := range map[string]string{"quoted": "<&>\"", "no UTF-8": "\xff\xfe"} {
		p := New("r", "p")
		for run := range 2 {
			var all []Read
			for i := range 1000 {
				all = append(all, Read{Path: fmt.Sprintf("/%d/%s/%d", run, strings.Repeat(long, 3500/len(long)), i), Size: Grain})
			}
			p.Add(all, day.Add(time.Duration(run)*time.Hour))
		}
		text := p.Encode()
		got, err := Decode(bytes.NewReader(text))
		if err != nil || len(got.Starts) == 0 || !got.Starts[0].Last.Equal(day.Add(time.Hour)) {
			t.Errorf("%s: %d bytes: %v", name, len(text), err)
		}
		if len(p.Starts) != 2 || len(p.Starts[1].Reads) != 1000 {
			t.Errorf("%s: writing it has changed it", name)
		}
	}
}

// TestAddBounds: what Add makes can be written and read: starts that grow together, and that
// were seen very often.
func TestAddBounds(t *testing.T) {
	t.Parallel()
	p := New("r", "p")
	const blocks = 8000
	p.Add([]Read{{Path: "/big", Size: blocks * Grain}}, day)
	p.Starts[0].Runs = 1 << 30
	p.Add([]Read{{Path: "/big", Off: blocks / 3 * Grain, Size: blocks * Grain}}, day.Add(time.Hour))
	if len(p.Starts) != 1 || p.Starts[0].Runs != 1<<30 {
		t.Fatalf("got %d starts, the first of %d runs", len(p.Starts), p.Starts[0].Runs)
	}
	if got, err := Decode(bytes.NewReader(p.Encode())); err != nil || !reflect.DeepEqual(got, p) {
		t.Error(err)
	}
}

// TestAddClock: a clock that was wrong, or a profile that lies, does not keep new starts out.
func TestAddClock(t *testing.T) {
	t.Parallel()
	p := New("r", "p")
	for i := range MaxStarts {
		p.Add(reads(8, fmt.Sprintf("/of/tomorrow/%d", i)), day.AddDate(1000, 0, i))
	}
	p.Add(reads(8, "/bin/now"), day)
	if len(p.Starts) != MaxStarts || p.Starts[0].Reads[0].Path != "/bin/now" {
		t.Errorf("the first start is %+v", p.Starts[0])
	}
	for i, s := range p.Starts {
		if s.Last.After(day) {
			t.Errorf("start %d was seen at %v, and it is %v", i, s.Last, day)
		}
	}
}

// TestDecodeMemory: lists that are too long take no memory before they are refused.
func TestDecodeMemory(t *testing.T) {
	for name, text := range map[string]string{
		"starts": `{"format":"imgfs profile 1","starts":[{}` + strings.Repeat(",{}", 1<<20) + `]}`,
		"reads":  one(`"runs":1,"paths":["/a"],"reads":[[]` + strings.Repeat(",[]", 1<<20) + `]`),
		"paths":  one(`"runs":1,"paths":[""` + strings.Repeat(`,""`, 1<<20) + `],"reads":[]`),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(strings.NewReader(text))
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrFormat) || n > 12*MaxSize {
			t.Errorf("%s: %v, and %d bytes of memory", name, err, n)
		}
	}
}

// hostile are texts that are refused, and words of the reason.
var hostile = map[string]string{
	``:                             "unexpected end",
	`{"format":"imgfs profile 2"}`: "its format",
	`{"format":"imgfs profile 2","starts":{}}`:                         "its format",
	`{"format":"imgfs profile 1","starts":{}}`:                         "starts begin with {",
	one(`"runs":1,"paths":{},"reads":[]`):                              "paths begin with {",
	one(`"runs":1,"paths":["/a"],"pathBytes":["YQ=="],"reads":[]`):     "paths begin with [",
	one(`"runs":1,"paths":["/a"],"pathBytes":{"x":"YQ=="},"reads":[]`): "invalid syntax",
	`[1]`:                                 "cannot unmarshal",
	one(`"runs":0,"paths":[],"reads":[]`): "0 runs",
	`{"format":"imgfs profile 1","starts":[{"runs":1,"paths":[],"reads":[]}]}`:                           "the year 1",
	one(`"runs":1,"paths":["a"],"reads":[]`):                                                             "path 0",
	one(`"runs":1,"paths":["/a\u0000b"],"reads":[]`):                                                     "path 0",
	one(`"runs":1,"paths":["/"],"reads":[]`):                                                             "path 0",
	one(`"runs":1,"paths":["/a"],"pathBytes":{"7":"YQ=="},"reads":[]`):                                   "bytes of path 7",
	one(`"runs":1,"paths":["/a"],"pathBytes":{"0":"YQ=="},"reads":[]`):                                   "path 0",
	one(`"runs":1,"paths":["/a"],"reads":[[1,0,1,0,1]]`):                                                 "path 1 of 1",
	one(`"runs":1,"paths":["/a"],"reads":[[-1,0,1,0,1]]`):                                                "path -1",
	one(`"runs":1,"paths":["/a"],"reads":[[0,-1,1,0,1]]`):                                                "grains",
	one(`"runs":1,"paths":["/a"],"reads":[[0,9223372036854775807,1,0,1]]`):                               "grains",
	one(`"runs":1,"paths":["/a"],"reads":[[0,0,0,0,1]]`):                                                 "grains",
	one(`"runs":1,"paths":["/a"],"reads":[[0,0,99999,0,1]]`):                                             "grains",
	one(`"runs":1,"paths":["/a"],"reads":[[0,0,8192,0,1],[0,0,1,0,1]]`):                                  "more than 536870912 bytes",
	one(`"runs":1,"paths":["/a"],"reads":[[0,0,1,-1,1]]`):                                                "ms after",
	one(`"runs":1,"paths":["/a"],"reads":[[0,0,1,0,101]]`):                                               "share",
	one(`"runs":1,"paths":["/a"],"reads":[[0,0,1,0]]`):                                                   "4 numbers",
	one(`"runs":1,"paths":["/a"],"reads":[` + strings.Repeat("[0,0,1,0,1],", MaxReads) + `[0,0,1,0,1]]`): "reads",
	`{"format":"imgfs profile 1","starts":[` + strings.Repeat(`{"runs":1},`, MaxStarts) + `{"runs":1}]}`: "more than 8 starts",
	`{"format":"imgfs profile 1","repository":"` + strings.Repeat("a", MaxSize) + `"}`:                   "more than 8388608 bytes",
}

func one(fields string) string {
	return `{"format":"imgfs profile 1","starts":[{"last":"2026-11-30T12:00:00Z",` + fields + `}]}`
}

func TestDecodeHostile(t *testing.T) {
	t.Parallel()
	for text, want := range hostile {
		if _, err := Decode(strings.NewReader(text)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got error %v, want one that says %q", text, err, want)
		}
	}
}

// FuzzDecode: what is read is in the bounds, and means the same when it is written and read
// again.
func FuzzDecode(f *testing.F) {
	for text := range hostile {
		if len(text) < 1<<10 {
			f.Add([]byte(text))
		}
	}
	f.Add([]byte(one(`"runs":3,"paths":["/a","/b"],"reads":[[0,0,1,0,100],[1,5,2,7,30]]`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := Decode(bytes.NewReader(p.Encode()))
		if err != nil {
			t.Fatalf("it cannot be read again: %v", err)
		}
		if !bytes.Equal(again.Encode(), p.Encode()) {
			t.Error("it is not the same when it is read again")
		}
		p.Add(reads(8, "/a", "/b"), day)
		for range NewChooser(p).First() {
		}
	})
}
