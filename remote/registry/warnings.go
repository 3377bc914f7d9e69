package registry

import "sync"

// warnings tell each thing once, as long as it stays so. They are safe for
// concurrent use.
type warnings struct {
	warnf func(format string, args ...any)

	mu   sync.Mutex
	told map[string]bool
}

func newWarnings(warnf func(format string, args ...any)) *warnings {
	return &warnings{warnf: warnf, told: make(map[string]bool)}
}

// tell warns of something, unless that was told already.
func (w *warnings) tell(text string) {
	const most = 100 // that are remembered
	w.mu.Lock()
	told := w.told[text]
	if len(w.told) >= most {
		clear(w.told)
	}
	w.told[text] = true
	w.mu.Unlock()
	if !told {
		w.warnf("%s", text)
	}
}

// forget has something told anew when it comes back.
func (w *warnings) forget(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.told, text)
}
