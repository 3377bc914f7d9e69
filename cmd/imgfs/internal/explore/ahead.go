package explore

import "slices"

// mostAhead is how many keys may wait.
const mostAhead = 1000

// An ahead is what was typed before the screen had what it is for. At once it would do
// nothing, or something else than on a faster machine.
type ahead struct {
	key string
	do  func()
}

// waits reports whether a key is to wait.
func (m *Model) waits(key string) bool {
	switch key {
	case keyEsc, "Ctrl-C", "Ctrl-L", "Ctrl-Z":
		return false
	}
	return len(m.ahead) > 0 || m.early(key)
}

// early reports whether what a key is for is not on the screen yet.
func (m *Model) early(key string) bool {
	switch {
	case m.prompt != nil || m.popup != nil || key == "q":
		return false
	case m.viewer != nil:
		return !m.viewer.chose && m.does(taskRead)
	case key == "/" || key == "?":
		return false
	case m.layers == nil || m.does(taskSearch): // that moves the cursor
		return true
	case m.files.source == nil || m.does(taskTree):
		return m.inTree || slices.Contains([]string{"c", "o", "n", "N", "s", "v", "d"}, key)
	}
	return false
}

// wait has something done as if a key did it.
func (m *Model) wait(key string, do func()) {
	if len(m.ahead) < mostAhead {
		m.ahead = append(m.ahead, ahead{key, do})
	}
}

// next has something done before all that waits.
func (m *Model) next(key string, do func()) {
	m.ahead = slices.Insert(m.ahead, 0, ahead{key, do})
	m.catchUp()
}

// catchUp does what waits, up to what is still early.
func (m *Model) catchUp() {
	for len(m.ahead) > 0 && !m.early(m.ahead[0].key) {
		do := m.ahead[0].do
		m.ahead = m.ahead[1:]
		do()
	}
}
