package podstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/testenv"
)

func digestOf(text string) digest.Digest { return digest.FromString(text) }

// holdListsLocked locks the lists of a store for reading, as the library does, until standard
// input ends.
func holdListsLocked(dir string) error {
	for _, name := range []string{"overlay-images/images.lock", "overlay-layers/layers.lock"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}); err != nil {
			return err
		}
	}
	fmt.Println("locked")
	_, err := os.Stdin.Read(make([]byte, 1))
	return err
}

// changeForEver adds images and removes them, until it is killed.
func changeForEver(dir, word string) error {
	ctx := context.Background()
	for i := 0; ; i++ {
		s, err := Create(ctx, dir)
		if err != nil {
			return err
		}
		img, err := testImage(fmt.Sprint(i%3), 1+i%3, "example.com/"+word, "example.com/all:latest")
		if err != nil {
			return err
		}
		held, err := s.Abandoned(ctx)
		if err != nil {
			return err
		}
		for _, h := range held {
			h.Release()
		}
		if i%2 == 0 {
			err = addHeld(ctx, s, img)
		} else {
			err = removeHeld(ctx, s, img)
		}
		if err != nil {
			return err
		}
	}
}

// child starts a child that does something with a store, and returns what ends it.
func child(t *testing.T, s *Store, what string) (out io.Reader, end func()) {
	t.Helper()
	cmd := testenv.Child(t, childVariable, s.dir+" "+what)
	var said bytes.Buffer
	cmd.Stderr = &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return out, func() {
		stdin.Close()
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err != nil && said.Len() > 0 && !bytes.Contains(said.Bytes(), []byte("EOF")) {
			t.Errorf("the child ended: %v: %s", err, said.String())
		}
	}
}

// TestLocks waits for an engine that reads the lists, and leaves a new mark for it.
func TestLocks(t *testing.T) {
	s := newStore(t)
	img := mustImage(t, "one", 2)
	lock := filepath.Join(s.dir, "overlay-images/images.lock")
	before, err := os.ReadFile(lock)
	if err != nil || len(before) != writeMarkSize {
		t.Fatalf("the mark has %d bytes, %v", len(before), err)
	}
	out, end := child(t, s, "lock")
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Errorf("the child said %q, %v", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := addHeld(ctx, s, img); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the lists are locked: got error %v, want that it waits", err)
	}
	end()
	mustAdd(t, s, img)
	if after, err := os.ReadFile(lock); err != nil || bytes.Equal(before, after) || len(after) != writeMarkSize {
		t.Errorf("the mark is %x, %v, and was %x", after, err, before)
	}
	checkStore(t, s)
}

// TestHold: an image is held by one at a time, also while it goes.
func TestHold(t *testing.T) {
	s := newStore(t)
	layer := mustImage(t, "one", 1).Layer
	var mu sync.Mutex
	holders, all := 0, sync.WaitGroup{}
	for range 8 {
		all.Go(func() {
			for range 20 {
				held, err := s.Hold(t.Context(), layer)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if holders++; holders != 1 {
					t.Errorf("%d hold it", holders)
				}
				mu.Unlock()
				if err := held.MakeMountpoint(); err != nil {
					t.Error(err)
				}
				mu.Lock()
				holders--
				mu.Unlock()
				held.Release()
			}
		})
	}
	all.Wait()
	if entries, err := os.ReadDir(filepath.Join(s.dir, mountsDir)); err != nil || len(entries) > 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// TestKilled has processes that add and remove the same images at once be killed at any
// instruction: those that live go on, and the next one mends the store.
func TestKilled(t *testing.T) {
	testenv.Slow(t)
	s := newStore(t)
	deadline := time.Now().Add(4 * time.Second)
	kills := 0
	for time.Now().Before(deadline) {
		var ends []func()
		for i := range 3 {
			_, end := child(t, s, fmt.Sprint("process", i))
			ends = append(ends, end)
		}
		time.Sleep(time.Duration(rand.IntN(200_000)) * time.Microsecond)
		for _, end := range ends {
			end()
			kills++
		}
		if kills%2 == 0 {
			continue // the next processes find what two rounds have left
		}
		mended(t, s)
		if t.Failed() {
			t.Fatalf("after %d kills", kills)
		}
	}
	mended(t, s)
	images, err := s.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		if err := removeHeld(t.Context(), s, img); err != nil {
			t.Error(err)
		}
	}
	if names := checkStore(t, s); len(names) > 0 {
		t.Errorf("left are %q", names)
	}
	if entries, err := os.ReadDir(filepath.Join(s.dir, mountsDir)); err != nil || len(entries) > 0 {
		t.Errorf("left are %v, %v", entries, err)
	}
	t.Logf("%d processes were killed", kills)
}

// mended opens a store anew, checks it, and has what is mounted of no image go.
func mended(t *testing.T, s *Store) {
	t.Helper()
	if _, err := Create(t.Context(), s.dir); err != nil {
		t.Fatal(err)
	}
	checkStore(t, s)
	held, err := s.Abandoned(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range held {
		h.Release()
	}
}

// TestAbandoned: what is mounted of no image is found, unless somebody is about to add it.
func TestAbandoned(t *testing.T) {
	s := newStore(t)
	kept, left, coming := mustImage(t, "kept", 1), mustImage(t, "left", 1), mustImage(t, "coming", 1)
	mustAdd(t, s, kept)
	if err := os.Mkdir(s.Mountpoint(left.Layer), 0o700); err != nil {
		t.Fatal(err)
	}
	held, err := s.Hold(t.Context(), coming.Layer)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Abandoned(t.Context())
	if err != nil || len(found) != 1 || found[0].Mountpoint() != s.Mountpoint(left.Layer) {
		t.Fatalf("got %+v, %v, want that of %s alone", found, err, left.Layer)
	}
	found[0].Release()
	if err := s.Add(t.Context(), coming); err != nil {
		t.Fatal(err)
	}
	held.Release()
	if found, err := s.Abandoned(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("got %+v, %v, want none", found, err)
	}
}
