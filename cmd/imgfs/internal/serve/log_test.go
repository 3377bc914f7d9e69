package serve

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// strangeText is a text of a stranger, with all that must not come out as it is,
// and a line that looks like one of imgfs.
const (
	strangeText = "\x1b]0;title\x07\x1b[31m\u009b31m\x7f\u202e\u2066\u200f\u061c\ufeff\u200b\u2060\U000e0041\ufe0f\u2028\u2029\u00a0\u3164\t\r\nimgfs: forged\n'\"\\$(id)`id`  "
	strangeName = strangeText + "\xff\xc3"
)

// acts finds what acts on a terminal, or is not to be seen. It is written down here
// apart from what it judges.
var acts = regexp.MustCompile(`[\x{00}-\x{09}\x{0b}-\x{1f}\x{7f}-\x{a0}\x{ad}\x{61c}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{2069}\x{3164}\x{fe00}-\x{fe0f}\x{feff}\x{e0000}-\x{e0fff}]`)

// TestLogLines has lines of a log that try to be two.
func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	l := &mountLog{dir: "/mnt/" + strangeName, w: &out}
	l.printf("read %s: %v", "/"+strangeName, fmt.Errorf("%s", strangeText))
	l.printf("%s", strings.Repeat("x", 1<<20))
	if bad := acts.FindString(out.String()); bad != "" || !utf8.Valid(out.Bytes()) || strings.Contains(out.String(), "\nimgfs: forged") {
		t.Errorf("%q, or what is no UTF-8, or a forged line, is in the log:\n%s", bad, out.String())
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("got %d lines, want 2:\n%s", n, out.String())
	}
	if out.Len() > 10<<10 {
		t.Errorf("two lines have %d bytes", out.Len())
	}
}
