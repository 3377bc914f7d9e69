package directory

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	logLimit = 1 << 20
	logFull  = logLimit * 15 / 32 // of one file
	logLines = 6000
)

// writeLog is the child that TestLogOfManyProcesses runs.
func writeLog(dir, mark string) {
	c, err := Open(dir, Options{})
	if err == nil {
		err = fillLog(c, mark)
	}
	if err != nil {
		fmt.Println("failed:", err)
	}
}

func fillLog(c *Dir, mark string) error {
	l, err := c.OpenLog(logLimit)
	if err != nil {
		return err
	}
	for i := range logLines {
		_, _ = fmt.Fprintf(l, "%s line %d %s\n", mark, i, strings.Repeat("x", 150)) // some are lost
	}
	return l.Close()
}

// However many processes write to a log, it has 1 MiB at most, at any time, and
// whole lines.
func TestLogOfManyProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	openAt(t, dir)
	done := make(chan error)
	const writers = 4
	for i := range writers {
		cmd := child(t, "log", dir)
		cmd.Args = append(cmd.Args, fmt.Sprint("w", i))
		go func() {
			out, err := cmd.CombinedOutput()
			if err == nil && len(out) > 0 {
				err = fmt.Errorf("%s", out)
			}
			done <- err
		}()
	}
	for left := writers; left > 0; {
		select {
		case err := <-done:
			if left--; err != nil {
				t.Error(err)
			}
		case <-time.After(time.Millisecond):
		}
		if n := logSize(dir); n > logLimit {
			t.Fatalf("the log has %d bytes", n)
		}
	}
	line := regexp.MustCompile(`^(w\d line \d+ x{150}|\S+ imgfs: lines of this process that are lost: \d+)$`)
	for _, name := range []string{LogName, oldLogName} {
		for _, l := range strings.Split(strings.TrimSuffix(textOf(t, dir, name), "\n"), "\n") {
			if !line.MatchString(l) {
				t.Fatalf("%s has the line %q", name, l)
			}
		}
	}
	if n := len(textOf(t, dir, oldLogName)); n < logFull-1000 {
		t.Errorf("only %d bytes were put aside", n)
	}
	if st, err := os.Stat(filepath.Join(dir, LogName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v and error %v, want mode 0600", st, err)
	}
}

// logSize returns the bytes of the log and of what was put aside.
func logSize(dir string) (n int64) {
	for _, name := range []string{LogName, oldLogName} {
		if st, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			n += st.Size()
		}
	}
	return n
}

func textOf(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Nothing is written through what lies at the log's place and is no log, and
// nobody waits for it.
func TestLogIsNoOtherFile(t *testing.T) {
	for name, place := range map[string]func(path, victim string) error{
		"symlink":          func(path, victim string) error { return os.Symlink(victim, path) },
		"dangling symlink": func(path, victim string) error { return os.Symlink(victim+"-new", path) },
		"hard link":        func(path, victim string) error { return os.Link(victim, path) },
		"directory":        func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"fifo":             func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dir, victim := filepath.Join(base, "cache"), filepath.Join(base, "victim")
			c := openAt(t, dir)
			if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, LogName)
			if err := place(path, victim); err != nil {
				t.Fatal(err)
			}
			l, err := c.OpenLog(logLimit)
			if got, want := err == nil, name == "hard link"; got != want {
				t.Errorf("got error %v", err)
			}
			if err == nil {
				fmt.Fprintln(l, "hello")
				l.Close()
				if text := textOf(t, dir, LogName); text != "hello\n" {
					t.Errorf("the log has %q", text)
				}
			}
			if text := textOf(t, base, "victim"); text != "mine" {
				t.Errorf("another file has %q now", text)
			}
			if _, err := os.Lstat(victim + "-new"); err == nil {
				t.Error("a file was made through a link")
			}
		})
	}
}

// A log that was swapped under a process, or removed, is noticed.
func TestLogSwapped(t *testing.T) {
	base := t.TempDir()
	dir, victim := filepath.Join(base, "cache"), filepath.Join(base, "victim")
	l, err := openAt(t, dir).OpenLog(logLimit)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(dir, LogName)
	fmt.Fprintln(l, "one")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(l, "two")
	if text := textOf(t, dir, LogName); text != "two\n" {
		t.Errorf("after it was removed the log has %q", text)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(l, "three"); err == nil {
		t.Error("a link in place of the log is no error")
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("a file was made through a link")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(l, "four")
	if text := textOf(t, dir, LogName); !strings.Contains(text, "lines of this process that are lost: 1\n") || !strings.HasSuffix(text, "\nfour\n") {
		t.Errorf("the log has %q", text)
	}
}

// Logs of before, when more was allowed, do not stay too large.
func TestLogOfBefore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	c := openAt(t, dir)
	for _, name := range []string{LogName, oldLogName} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("x"), 3<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := c.OpenLog(logLimit)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fmt.Fprintln(l, "hello")
	if n := logSize(dir); n > logLimit {
		t.Errorf("the log has %d bytes", n)
	}
	if text := textOf(t, dir, LogName); text != "hello\n" {
		t.Errorf("the log has %d bytes", len(text))
	}
}

// A process that keeps the lock costs lines, not time.
func TestLogLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	l, err := openAt(t, dir).OpenLog(logLimit)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := os.Open(filepath.Join(dir, LogName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Flock(f, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for range 2 {
		if _, err := fmt.Fprintln(l, "lost"); err == nil {
			t.Error("a line was written without the lock")
		}
	}
	if d := time.Since(begun); d > 10*time.Second {
		t.Errorf("two lines took %s", d)
	}
	if err := Flock(f, unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(l, "three")
	if text := textOf(t, dir, LogName); !strings.Contains(text, "lines of this process that are lost: 2\n") || !strings.HasSuffix(text, "\nthree\n") {
		t.Errorf("the log has %q", text)
	}
}
