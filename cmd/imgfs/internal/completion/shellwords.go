package completion

import "strings"

// A typed is a word of a shell's command line.
type typed struct {
	value string // without its quotes
	quote byte   // ' or " if it ends within quotes
	// cuts are the places in value at which the shell may begin to replace, if the
	// character before it is one of breaks; quoteAt is that behind the open quote.
	cuts    []cut
	quoteAt int
	breaks  string
}

// A cut is a place in a word behind a character that is not quoted.
type cut struct {
	at int
	by byte
}

// split takes apart a command line as a shell does, without expanding anything. The last
// word is what is being typed, and may be empty. ok is false where something other than
// words is being typed: a command in $( or `, a redirection.
func split(line string) (words []typed, ok bool) {
	w, begun := typed{}, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case w.quote == '\'' && c != '\'', w.quote == '"' && c != '"' && c != '\\':
			w.value += line[i : i+1]
		case w.quote != 0 && c == w.quote:
			w.quote = 0
			w.cuts = append(w.cuts, cut{len(w.value), c})
		case c == '\\' && i+1 < len(line):
			i++
			if w.quote == '"' && !strings.ContainsRune("$`\"\\\n", rune(line[i])) {
				w.value += `\`
			}
			w.value, begun = w.value+line[i:i+1], true
		case c == '\\': // nothing is behind it yet
			begun = true
		case c == '\'' || c == '"':
			w.quote, w.quoteAt, begun = c, len(w.value), true
			w.cuts = append(w.cuts, cut{len(w.value), c})
		case c == ' ' || c == '\t' || c == '\n':
			if begun {
				words = append(words, w)
			}
			w, begun = typed{}, false
		case strings.ContainsRune("`;|&<>()", rune(c)):
			return nil, false
		default:
			w.value, begun = w.value+line[i:i+1], true
			w.cuts = append(w.cuts, cut{len(w.value), c})
		}
	}
	for len(words) > 0 && isAssignment(words[0].value) {
		words = words[1:]
	}
	return append(words, w), true
}

// isAssignment reports whether a word before a command sets a variable.
func isAssignment(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	return ok && name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// insert returns what bash puts in the place of the part that it replaces of a word, so
// that the word becomes another one: it replaces what is behind the open quote, or behind
// the last character of COMP_WORDBREAKS. It returns "" for a word that does not begin so.
func (w *typed) insert(word string) string {
	start := 0
	for _, c := range w.cuts {
		if strings.IndexByte(w.breaks, c.by) >= 0 {
			start = c.at
		}
	}
	if w.quote != 0 {
		start = w.quoteAt
	}
	if start > len(w.value) || !strings.HasPrefix(word, w.value[:start]) {
		return ""
	}
	return quote(word[start:], w.quote)
}

// quote writes a text so that a shell takes it as it is, within quotes of a kind or none
// (0).
func quote(text string, kind byte) string {
	switch kind {
	case '\'':
		return strings.ReplaceAll(text, `'`, `'\''`)
	case '"':
		text = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(text)
		// A backslash does not keep an interactive shell from taking ! for its history.
		return strings.ReplaceAll(text, "!", `"'!'"`)
	}
	var b strings.Builder
	for i := range len(text) {
		r := text[i]
		safe := r == '/' || r == '.' || r == '-' || r == '_' || r == ':' || r == '@' || r == '+' || r == ',' || r == '%' || r == '=' ||
			r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80
		if !safe || i == 0 && r == '=' {
			b.WriteByte('\\')
		}
		b.WriteByte(r)
	}
	return b.String()
}
