package explore

import (
	"unicode/utf8"
)

// A prompt is a line that is being typed.
type prompt struct {
	label string
	text  []byte
	done  func(text string)
}

// key edits the line. It reports whether the prompt is over.
func (p *prompt) key(key string) (over, entered bool) {
	switch key {
	case "Enter":
		return true, true
	case "Esc", "Ctrl-C":
		return true, false
	case "Backspace":
		if len(p.text) == 0 {
			return true, false
		}
		_, n := utf8.DecodeLastRune(p.text)
		p.text = p.text[:len(p.text)-n]
	case "Ctrl-U":
		p.text = p.text[:0]
	case "Ctrl-W":
		n := len(p.text)
		for n > 0 && (p.text[n-1] == ' ' || p.text[n-1] == '/') {
			n--
		}
		for n > 0 && p.text[n-1] != ' ' && p.text[n-1] != '/' {
			n--
		}
		p.text = p.text[:n]
	default:
		if utf8.RuneCountInString(key) == 1 && len(p.text) < 4096 {
			p.text = append(p.text, key...)
		}
	}
	return false, false
}
