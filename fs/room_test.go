package fs_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/imgfs/imgfs/fs"
)

// A countingRoom is a fs.Room of the heap that has room for so many arrays.
type countingRoom struct {
	mu          sync.Mutex
	left, given int
	checks      int
}

func (r *countingRoom) Alloc(n int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left == 0 {
		return nil
	}
	r.left--
	r.given++
	return make([]byte, n) // as large as it is, it is aligned
}

func (r *countingRoom) Check() { r.checks++ }

// histories writes all that a survey says of paths.
func histories(s *fs.Survey) string {
	text := fmt.Sprintln(s.Layers())
	for i := range s.NumPaths() {
		text += fmt.Sprintln(s.Path(i), s.Path(i).History())
	}
	return text
}

// TestRoom makes trees in other memory than the heap, and partly there, and compares.
func TestRoom(t *testing.T) {
	for seed := range uint64(40) {
		g := generator{choose: rand.New(rand.NewPCG(seed, 2)).IntN, devices: true, trusted: true, xattrs: true, owners: true}
		layers := layersOf(g.stack()...)
		want, err := fs.Merge(t.Context(), layers)
		if err != nil {
			continue
		}
		wantHistory := ""
		for _, room := range []int{0, 1, 5, 12, 1 << 20} {
			r := &countingRoom{left: room}
			b, err := fs.NewBuilder(t.Context(), &fs.BuilderOptions{Survey: true, Room: r})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range layers {
				if err := b.Apply(l); err != nil {
					t.Fatal(err)
				}
			}
			got, err := b.Tree()
			if err != nil {
				t.Fatal(err)
			}
			if got, want := dump(t, got), dump(t, want); got != want || r.given == 0 && room > 0 {
				t.Fatalf("seed %d, room for %d, %d given:\n%swant\n%s", seed, room, r.given, got, want)
			}
			if got := histories(b.Survey()); room == 0 {
				wantHistory = got
			} else if got != wantHistory {
				t.Fatalf("seed %d, room for %d:\n%swant\n%s", seed, room, got, wantHistory)
			}
		}
	}
}
