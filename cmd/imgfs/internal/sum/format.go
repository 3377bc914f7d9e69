package sum

import (
	"encoding/hex"
	"strings"
)

// escapes are how a name stands in a line of text that begins with a backslash.
var escapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`)

// appendLine writes the line about a file, whose sum is in hex.
func (o *Options) appendLine(b []byte, sum, name string, show func(string) string) []byte {
	end := byte('\n')
	if o.zero {
		end = 0
	} else if escaped := escapes.Replace(name); escaped != name {
		b, name = append(b, '\\'), escaped
	}
	name = show(name)
	switch {
	case o.tag:
		b = append(append(append(append(b, "SHA256 ("...), name...), ") = "...), sum...)
	case o.binary:
		b = append(append(append(b, sum...), " *"...), name...)
	default:
		b = append(append(append(b, sum...), "  "...), name...)
	}
	return append(b, end)
}

// hexLength is how many digits a sum has.
const hexLength = 64

// parseLine reads a line about a file, without its end.
func parseLine(line string) (sum, name string, ok bool) {
	line = strings.TrimLeft(line, " \t")
	line, escaped := strings.CutPrefix(line, `\`)
	if tagged, found := strings.CutPrefix(line, "SHA256 ("); found {
		i := strings.LastIndex(tagged, ")")
		if i < 0 {
			return "", "", false
		}
		equals, after, _ := strings.Cut(tagged[i+1:], "=")
		name, sum = tagged[:i], strings.Trim(after, " \t")
		ok = strings.Trim(equals, " \t") == "" && len(sum) == hexLength
	} else if len(line) > hexLength+1 && (line[hexLength] == ' ' || line[hexLength] == '\t') {
		sum, name = line[:hexLength], line[hexLength+1:]
		if name[0] == ' ' || name[0] == '*' {
			name = name[1:]
		}
		ok = true
	}
	if _, err := hex.DecodeString(sum); !ok || err != nil || name == "" {
		return "", "", false
	}
	if escaped {
		name, ok = unescape(name)
	}
	return strings.ToLower(sum), name, ok
}

// unescape returns the name that a line with a backslash at its beginning has.
func unescape(s string) (name string, ok bool) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		if after == "" {
			return "", false
		}
		switch after[0] {
		case '\\':
			b.WriteByte('\\')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		default:
			return "", false
		}
		s = after[1:]
	}
}
