package treediff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	l "github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
)

// TestSparse: holes are zeros, and those that both sides have are not read.
func TestSparse(t *testing.T) {
	at := func(extents ...int64) (all []layerindex.Extent) {
		for i := 0; i < len(extents); i += 2 {
			all = append(all, layerindex.Extent{Off: extents[i], Size: extents[i+1]})
		}
		return all
	}
	const large = 1 << 60
	sparse := func(content string, extents ...int64) members {
		return members{l.Sparse("s", large, content, at(extents...))}
	}
	same, changed := []string(nil), []string{"~ s content"}
	for name, tt := range map[string]struct {
		a, b members
		want []string
	}{
		"same":                {sparse("abcd", 1, 2, 1<<50, 2), sparse("abcd", 1, 2, 1<<50, 2), same},
		"all hole":            {sparse("", large, 0), sparse("", large, 0), same},
		"split otherwise":     {sparse("abcd", 10, 4), sparse("abcd", 10, 1, 11, 1, 12, 2), same},
		"zeros and hole":      {sparse("a\x00\x00\x00b", 10, 5), sparse("ab", 10, 1, 14, 1), same},
		"zeros beside holes":  {sparse("\x00\x00", 10, 2), sparse("", large, 0), same},
		"content":             {sparse("abcd", 1, 2, 1<<50, 2), sparse("abce", 1, 2, 1<<50, 2), changed},
		"content and hole":    {sparse("ab", 1, 2), sparse("", large, 0), changed},
		"hole and content":    {sparse("", large, 0), sparse("ab", 1, 2), changed},
		"place":               {sparse("ab", 1, 2), sparse("ab", 2, 2), changed},
		"last byte":           {sparse("a", large-1, 1), sparse("b", large-1, 1), changed},
		"size":                {sparse("a", 1, 1), members{l.Sparse("s", large-1, "a", at(1, 1))}, changed},
		"sparse and ordinary": {members{l.Sparse("s", 6, "ab", at(1, 2))}, members{l.File("s", "\x00ab\x00\x00\x00")}, same},
		"ordinary and sparse": {members{l.File("s", "\x00ab\x00\x00c")}, members{l.Sparse("s", 6, "ab", at(1, 2))}, changed},
		"much content":        {sparse(strings.Repeat("x", 3*pieceSize), 5, 3*pieceSize), sparse(strings.Repeat("x", 3*pieceSize-1)+"y", 5, pieceSize, 5+pieceSize, 2*pieceSize), changed},
	} {
		t.Run(name, func(t *testing.T) { want(t, tt.a, tt.b, nil, tt.want...) })
	}
}

// TestPieces: contents are compared over the borders of what is read at a time.
func TestPieces(t *testing.T) {
	for _, size := range []int{pieceSize - 1, pieceSize, pieceSize + 1, 2 * pieceSize, 3*pieceSize + 7} {
		for _, at := range []int{-1, 0, size / 2, size - 1} {
			content := bytes.Repeat([]byte("abc"), size/3+1)[:size]
			other, lines := slices.Clone(content), []string(nil)
			if at >= 0 {
				other[at] ^= 1
				lines = []string{"~ f content"}
			}
			want(t, members{l.File("f", string(content))}, members{l.File("f", string(other))}, nil, lines...)
		}
	}
}

// TestDigests: what indexes know is not read; what only one side knows is.
func TestDigests(t *testing.T) {
	x, y, contents := two(t, members{l.File("f", "x"), l.File("g", "x")}, members{l.File("f", "x"), l.File("g", "y")})
	if got := textOf(t.Context(), x, y, nil); got != "~ g content" || contents[0].reads.Load() != 0 || contents[1].reads.Load() != 0 {
		t.Errorf("got %q after %d and %d reads", got, contents[0].reads.Load(), contents[1].reads.Load())
	}
	contents[1].noDigests = true
	if got := textOf(t.Context(), x, y, nil); got != "~ g content" || contents[0].reads.Load() != 3 || contents[1].reads.Load() != 3 {
		t.Errorf("got %q after %d and %d reads", got, contents[0].reads.Load(), contents[1].reads.Load())
	}
}

// many returns n files whose content on the two sides differs in every tenth.
func many(n int) (a, b members, lines []string) {
	for i := range n {
		name, other := fmt.Sprintf("f%05d", i), "same"
		if i%10 == 3 {
			other = "sane"
			lines = append(lines, "~ "+name+" content")
		}
		a, b = append(a, l.File(name, "same")), append(b, l.File(name, other))
	}
	return a, b, lines
}

// TestReadError: a file that cannot be read is told with what else differs, and comparing
// goes on.
func TestReadError(t *testing.T) {
	a := members{l.File("a", "one"), l.File("b", "two"), l.File("c", "three"), l.File("d", "four")}
	b := members{l.File("a", "ONE"), l.File("b", "TWO", l.Mode(0o600)), l.File("c", "THREE"), l.File("d", "FOUR")}
	for side := range 2 {
		x, y, contents := two(t, a, b)
		contents[0].noDigests = true
		tree := x
		if side == 1 {
			tree = y
		}
		broken := map[int64]bool{}
		for _, path := range []string{"/b", "/c"} {
			n, err := tree.Lookup(path, false)
			if err != nil {
				t.Fatal(err)
			}
			_, off, _ := n.Provenance()
			broken[off] = true
		}
		contents[side].Content = refusing{contents[side].Content, broken}
		got := textOf(t.Context(), x, y, nil)
		if want := "~ a content\n~ b mode !the layer is broken\n~ c !the layer is broken\n~ d content"; got != want {
			t.Errorf("side %d: got\n%s\nwant\n%s", side, got, want)
		}
	}
}

// TestContextEnds: its error is told, once, and is the last; nothing is read any more.
func TestContextEnds(t *testing.T) {
	a, b, _ := many(5000)
	for name, when := range map[string]int64{"before": 0, "while reading": 40} {
		t.Run(name, func(t *testing.T) {
			x, y, contents := two(t, a, b)
			contents[0].noDigests = true
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if when == 0 {
				cancel()
			}
			var running atomic.Int64
			contents[0].read = func(ctx context.Context, _ int64) error {
				running.Add(1)
				defer running.Add(-1)
				if contents[0].reads.Load() == when {
					cancel()
				}
				if contents[0].reads.Load() >= when {
					<-ctx.Done()
				}
				return ctx.Err()
			}
			var errs []error
			for c, err := range Compare(ctx, x.Root(), y.Root(), nil) {
				if len(errs) > 0 {
					t.Errorf("%s is told after the end", text(c, err))
				}
				if err != nil {
					errs = append(errs, err)
				}
			}
			if len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
				t.Errorf("got the errors %v", errs)
			}
			if n := running.Load(); n != 0 {
				t.Errorf("%d reads have not ended", n)
			}
			if n := contents[0].reads.Load(); n > when+maxReaders {
				t.Errorf("%d files were read", n)
			}
		})
	}
}

// TestContextEndsWithoutReading: a comparison that reads nothing ends as well.
func TestContextEndsWithoutReading(t *testing.T) {
	x, y, _ := two(t, members{l.File("f", "x")}, members{l.File("f", "x")})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var got []string
	for c, err := range Compare(ctx, x.Root(), y.Root(), nil) {
		got = append(got, text(c, err))
	}
	if len(got) != 1 || !strings.Contains(got[0], "context canceled") { // and no change
		t.Errorf("got %q", got)
	}
}

// TestCallerStops: whoever reads has ended once the caller is told so.
func TestCallerStops(t *testing.T) {
	a, b, lines := many(3000)
	x, y, contents := two(t, a, b)
	contents[0].noDigests = true
	var running atomic.Int64
	contents[0].read = func(context.Context, int64) error {
		running.Add(1)
		defer running.Add(-1)
		return nil
	}
	told := 0
	for c, err := range Compare(t.Context(), x.Root(), y.Root(), nil) {
		if c.Path == ".side" {
			continue
		}
		if got := text(c, err); got != lines[told] {
			t.Errorf("got %s, want %s", got, lines[told])
		}
		if told++; told == 7 {
			break
		}
	}
	if n := running.Load(); n != 0 {
		t.Errorf("%d reads have not ended", n)
	}
	if n := contents[0].reads.Load(); n > 100 {
		t.Errorf("%d files were read for the first 7 changes", n)
	}
}

// TestManyAreRead: changes come in order though they are read side by side, and no more
// files than are allowed are read at once.
func TestManyAreRead(t *testing.T) {
	a, b, lines := many(2000)
	x, y, contents := two(t, a, b)
	contents[1].noDigests = true
	var mu sync.Mutex
	running, most := 0, 0
	contents[1].read = func(_ context.Context, off int64) error {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		if off>>9%3 == 0 {
			time.Sleep(time.Millisecond)
		}
		mu.Lock()
		running--
		mu.Unlock()
		return nil
	}
	if got := textOf(t.Context(), x, y, nil); got != strings.Join(lines, "\n") {
		t.Errorf("got\n%.500s\nwant\n%.500s", got, strings.Join(lines, "\n"))
	}
	if most < 2 || most > maxReaders {
		t.Errorf("up to %d files were read at once, want 2 to %d", most, maxReaders)
	}
}

// TestWaitingIsBounded: behind a file that is slow to read no more changes wait than are
// allowed.
func TestWaitingIsBounded(t *testing.T) {
	a, b := members{l.File("a", "slow")}, members{l.File("a", "SLOW")}
	for i := range 3 * maxPending {
		b = append(b, l.File(fmt.Sprintf("b%05d", i), ""))
	}
	x, y, contents := two(t, a, b)
	contents[0].noDigests = true
	q := &queue{ctx: t.Context()}
	told, slow := 0, make(chan struct{})
	q.yield = func(Change, error) bool { told++; return true }
	v := &verdict{done: slow}
	q.add(pending{content: v})
	for i := range maxPending - 1 {
		if !q.add(pending{change: Change{Kind: Added}}) || told != 0 {
			t.Fatalf("%d told behind %d", told, i)
		}
	}
	go func() { time.Sleep(10 * time.Millisecond); close(slow) }()
	if !q.add(pending{change: Change{Kind: Added}}) || told == 0 {
		t.Errorf("%d of %d wait", len(q.waiting), maxPending)
	}
	n := 0
	for range Compare(t.Context(), x.Root(), y.Root(), nil) {
		n++
	}
	if n != 3*maxPending+2 {
		t.Errorf("%d changes", n)
	}
}
