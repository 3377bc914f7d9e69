//go:build !linux

package explore

import "github.com/gdamore/tcell/v3"

// newTTY returns the terminal. What was typed before it is in use is lost.
func newTTY() (tcell.Tty, error) { return tcell.NewDevTty() }
