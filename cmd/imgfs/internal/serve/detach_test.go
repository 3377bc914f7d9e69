package serve

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
)

// family returns a parent as its child sees it, and what the parent reads.
func family(t *testing.T) (p *Parent, from *os.File) {
	t.Helper()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p = &Parent{to: to}
	t.Cleanup(func() {
		p.to.Close()
		from.Close()
	})
	return p, from
}

// A listener notes what a parent is told.
type listener struct {
	messages []string
	shown    []show.Progress
	closed   int
}

func (l *listener) Show(p show.Progress) { l.shown = append(l.shown, p) }
func (l *listener) Close()               { l.closed++ }

func (l *listener) child() *Child {
	return &Child{Message: func(line string) { l.messages = append(l.messages, line) }, Display: func() show.Display { return l }}
}

// TestWords: nothing that is in a word looks like another, or ends it.
func TestWords(t *testing.T) {
	p, from := family(t)
	texts := []string{"a\nb", `{"mounted":"eA=="}` + "\n", "\x1b[31m\u009b\u202e", "", strings.Repeat("\n\"", 100_000)}
	report := "mounted a\nb\xff on \x00"
	go func() {
		for _, text := range texts {
			p.Show(show.Progress{Label: text, Have: 1, All: 2})
			if err := p.say(word{Message: &text}); err != nil {
				t.Error(err)
			}
			p.Close()
		}
		if err := p.say(word{Mounted: []byte(report)}); err != nil {
			t.Error(err)
		}
	}()
	l := &listener{}
	if got, err := l.child().listen(from); got != report || err != nil {
		t.Errorf("got the report %q and error %v, want %q", got, err, report)
	}
	if fmt.Sprintf("%q", l.messages) != fmt.Sprintf("%q", texts) {
		t.Errorf("got the messages %.300q, want %.300q", l.messages, texts)
	}
	for _, s := range l.shown {
		if s.Have != 1 || s.All != 2 {
			t.Errorf("shown: %+v", s)
		}
	}
	if len(l.shown) == 0 || l.closed != len(l.shown) {
		t.Errorf("shown %d times, and closed %d times", len(l.shown), l.closed)
	}
}

// TestWordsEnd has a child end before the mount is ready, in the middle of a word.
func TestWordsEnd(t *testing.T) {
	for _, last := range []string{"", `{"message":"half`, "nonsense"} {
		p, from := family(t)
		p.Show(show.Progress{})
		if _, err := p.to.WriteString(last); err != nil {
			t.Fatal(err)
		}
		p.to.Close()
		l := &listener{}
		if report, err := l.child().listen(from); err == nil || report != "" {
			t.Errorf("after %q: got the report %q and no error", last, report)
		}
		if l.closed != 1 {
			t.Errorf("after %q: what is shown stays", last)
		}
	}
}

// TestStoppedParent has a parent that takes nothing: progress is left out, and no word
// is cut.
func TestStoppedParent(t *testing.T) {
	p, from := family(t)
	progress := show.Progress{Label: strings.Repeat("x", 3000)}
	for range 100 {
		begun := time.Now()
		p.Show(progress)
		if took := time.Since(begun); took > 5*time.Second {
			t.Fatalf("it waited %v for the parent", took)
		}
	}
	p.Show(show.Progress{Label: strings.Repeat("x", 2*maxProgress)}) // would be cut
	done := make(chan error, 1)
	go func() {
		text := "go on"
		done <- errors.Join(p.say(word{Message: &text}), p.to.Close())
	}()
	l := &listener{}
	if _, err := l.child().listen(from); err != io.EOF {
		t.Errorf("got error %v, want EOF", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(l.shown); n == 0 || n == 100 || len(l.messages) != 1 {
		t.Errorf("got %d of 100 and the messages %q, want some, and one message", n, l.messages)
	}
}
