package explore

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/gdamore/tcell/v3"
	"github.com/imgfs/imgfs/fs"
)

// Colours reports whether the user wants colours.
func Colours() bool { return os.Getenv("NO_COLOR") == "" }

// leaveLimit is how long what is done in the background is waited for in the end.
const leaveLimit = 500 * time.Millisecond

// A terminal is the screen of a Model.
type terminal struct {
	ctx    context.Context
	tty    tcell.Tty
	screen tcell.Screen
	posted queue
	group  sync.WaitGroup
	goesOn chan os.Signal // SIGCONT
	ends   chan os.Signal // what the pager gets with us
	once   sync.Once
}

// Run shows an image on the terminal until the user leaves. The error says why there is no
// terminal, or why the image cannot be opened, or is that of ctx. messages is given a
// function to which all that is printed is to go meanwhile, and then nil.
//
// The terminal is as it was before when Run returns or panics.
func Run(ctx context.Context, config Config, messages func(sink func(line string))) error {
	tcell.SetEncodingFallback(tcell.EncodingFallbackASCII)
	tty, err := newTTY()
	if err != nil {
		return fmt.Errorf("there is no terminal: %w", err)
	}
	// Asking the terminal what it can takes as long as its answer.
	opts := []tcell.TerminfoScreenOption{tcell.OptNegotiation(false), tcell.OptSanitizeContent(true)}
	if !config.Colour {
		opts = append(opts, tcell.OptColors(0))
	}
	screen, err := tcell.NewTerminfoScreenFromTty(tty, opts...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &terminal{ctx: ctx, tty: tty, screen: screen, posted: queue{ready: make(chan struct{}, 1)}, goesOn: make(chan os.Signal, 1), ends: make(chan os.Signal, 1)}
	if err := screen.Init(); err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	defer t.restore()
	screen.RegisterRuneFallback('…', "~")
	screen.EnableMouse(tcell.MouseButtonEvents)
	screen.EnablePaste()
	// SIGTSTP is left alone: once it has been asked for, it stops nobody any more.
	signal.Notify(t.goesOn, syscall.SIGCONT)
	defer signal.Stop(t.goesOn)
	m := NewModel(ctx, config, t, t.spawn, t.posted.add)
	messages(func(line string) { t.posted.add(func() { m.Warn(line) }) })
	defer messages(nil)
	m.Start()
	err = t.loop(m)
	cancel()
	t.wait()
	return err
}

// restore gives the terminal back.
func (t *terminal) restore() { t.once.Do(t.screen.Fini) }

// spawn runs something in another goroutine. If that panics the terminal is given back, so
// that what is said of it can be read.
func (t *terminal) spawn(do func()) {
	t.group.Go(func() {
		defer func() {
			if failed := recover(); failed != nil {
				t.restore()
				panic(failed)
			}
		}()
		do()
	})
}

// wait waits for what is done in the background, which has been ended.
func (t *terminal) wait() {
	over := make(chan struct{})
	go func() {
		t.group.Wait()
		close(over)
	}()
	select {
	case <-over:
	case <-time.After(leaveLimit):
	}
}

// loop draws, and takes what comes, until the end.
func (t *terminal) loop(m *Model) error {
	pasting := false
	for {
		if over, err := m.Over(); over || err != nil {
			return err
		}
		m.Draw(t.screen)
		t.screen.Show()
		select {
		case <-t.ctx.Done():
			return t.ctx.Err()
		case <-t.ends:
			return context.Canceled
		case <-t.goesOn: // somebody else has stopped it
			t.screen.Sync()
		case <-t.posted.ready:
			for _, do := range t.posted.take() {
				do()
			}
		case ev := <-t.screen.EventQ():
			switch ev := ev.(type) {
			case *tcell.EventPaste:
				pasting = ev.Start()
			case *tcell.EventKey:
				if key := keyName(ev); pasting {
					m.Paste(key)
				} else {
					m.Key(key)
				}
			case *tcell.EventMouse:
				mouse(m, ev)
			case *tcell.EventResize:
				t.screen.Sync()
			case *tcell.EventError: // the terminal is gone
				return fmt.Errorf("the terminal: %w", ev)
			}
		}
	}
}

// mouse does what a click or the wheel is for.
func mouse(m *Model, ev *tcell.EventMouse) {
	const rows = 3
	x, y := ev.Position()
	switch b := ev.Buttons(); {
	case b&tcell.WheelUp != 0:
		m.Wheel(x, y, -rows)
	case b&tcell.WheelDown != 0:
		m.Wheel(x, y, rows)
	case b&tcell.ButtonPrimary != 0:
		m.Click(x, y)
	}
}

// keyName returns the name of a key, as Keys have it.
func keyName(ev *tcell.EventKey) string {
	switch k := ev.Key(); k {
	case tcell.KeyRune:
		if ev.Modifiers()&tcell.ModCtrl != 0 {
			return "Ctrl-" + strings.ToUpper(ev.Str())
		}
		if ev.Modifiers()&(tcell.ModAlt|tcell.ModMeta) != 0 || !utf8.ValidString(ev.Str()) {
			return ""
		}
		return ev.Str()
	case tcell.KeyUp:
		return keyUp
	case tcell.KeyDown:
		return keyDown
	case tcell.KeyLeft:
		return keyLeft
	case tcell.KeyRight:
		return keyRight
	case tcell.KeyPgUp:
		return keyPgUp
	case tcell.KeyPgDn:
		return keyPgDn
	case tcell.KeyHome:
		return keyHome
	case tcell.KeyEnd:
		return keyEnd
	case tcell.KeyEnter:
		return keyEnter
	case tcell.KeyTab:
		return keyTab
	case tcell.KeyBacktab:
		return keyBackTab
	case tcell.KeyBackspace:
		return keyBS
	case tcell.KeyEsc:
		return keyEsc
	case tcell.KeyCtrlJ: // Enter, typed before the terminal was in use
		return keyEnter
	default:
		if k >= tcell.KeyCtrlA && k <= tcell.KeyCtrlZ {
			return "Ctrl-" + string(rune('A'+k-tcell.KeyCtrlA))
		}
	}
	return ""
}

// Redraw implements Outside.
func (t *terminal) Redraw() { t.screen.Sync() }

// away calls do while the terminal is as it was before Run.
func (t *terminal) away(do func() error) error {
	if p, ok := t.tty.(interface{ pause() }); ok {
		p.pause()
	}
	if err := t.screen.Suspend(); err != nil {
		return err
	}
	err := do()
	if failed := t.screen.Resume(); failed != nil {
		return failed
	}
	return err
}

// Stop implements Outside. It stops the whole job, as the terminal does for Ctrl-Z.
func (t *terminal) Stop() {
	// If nobody could let the process go on it is not stopped.
	const orphan = 200 * time.Millisecond
	_ = t.away(func() error {
		if err := syscall.Kill(0, syscall.SIGTSTP); err != nil {
			return err
		}
		select {
		case <-t.goesOn:
		case <-time.After(orphan):
		case <-t.ctx.Done():
		}
		return nil
	})
}

// Page implements Outside.
func (t *terminal) Page(n fs.Node) error {
	return t.away(func() error {
		// What the terminal sends comes here, too, and is the pager's alone.
		signal.Reset(syscall.SIGINT, syscall.SIGQUIT)
		signal.Notify(t.ends, syscall.SIGINT, syscall.SIGQUIT)
		err := page(t.ctx, n)
		select {
		case <-t.ends:
		default:
		}
		return err
	})
}

// A queue has functions for the goroutine of a model.
type queue struct {
	ready chan struct{}

	mu  sync.Mutex
	all []func()
}

// add adds one. It does not wait.
func (q *queue) add(do func()) {
	q.mu.Lock()
	q.all = append(q.all, do)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns all that have been added since it was called last.
func (q *queue) take() []func() {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.all
	q.all = nil
	return all
}
