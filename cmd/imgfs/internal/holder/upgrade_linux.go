package holder

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// until is when a process that is to be put in the server's place must be ready.
func (s *server) until(h *keeper) time.Time { return s.begun.Add(h.patience) }

// upgrade begins to put another program in the server's place. It takes the descriptor.
func (h *keeper) upgrade(c *client, program int) {
	if h.standby != nil || h.swap {
		unix.Close(program)
		h.reply(c, "refused another upgrade is under way")
		return
	}
	before := h.program
	h.program = program
	s, err := h.launch(true)
	h.program = before
	if err != nil {
		unix.Close(program)
		h.reply(c, "refused it could not be started: "+err.Error())
		return
	}
	h.standby, h.candidate, c.waits, h.asking = s, program, true, c
}

// change kills the server when its successor is ready, and has that begin when the server
// is gone.
func (h *keeper) change() {
	switch s := h.standby; {
	case !s.ready:
	case h.server != nil && !h.swap:
		h.swap = true
		h.kill(h.server) // nothing is lost: what it has not answered its successor does
	case h.server == nil:
		h.swap, h.standby, h.server, h.noneSince = false, nil, s, time.Now()
		_ = send(s.sock, fmt.Sprintf("go %d", h.died)) // or it is dying, which is seen
	}
}

// cancelUpgrade is called when who wanted it is gone.
func (h *keeper) cancelUpgrade() {
	h.asking = nil
	if h.standby != nil && !h.swap {
		h.kill(h.standby)
	}
}

// answerUpgrade tells who wanted an upgrade what came of it.
func (h *keeper) answerUpgrade(text string) {
	if c := h.asking; c != nil {
		h.asking = nil
		h.reply(c, text)
	}
}

// forgetProgram lets go of a program that could not take over.
func (h *keeper) forgetProgram() {
	if h.candidate >= 0 {
		unix.Close(h.candidate)
		h.candidate = -1
	}
}
