package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestDepth: brackets that are open are counted before anything is parsed.
func TestDepth(t *testing.T) {
	const many = 200_000
	for text, line := range map[string]int{
		"b = 1\na = " + strings.Repeat("[", many):                  2,
		"'#' = '[' # [\na = [\n" + strings.Repeat("[1, ", many):    3,
		"a = " + strings.Repeat("{a=", many):                       1,
		"a = [ # '\n'''\n''',\n" + strings.Repeat("[ # ]\n", 1000): 67,
	} {
		path := at(t, text)
		_, err := Load()
		var failed *Error
		if !errors.As(err, &failed) || failed.Path != path || failed.Line != line || !strings.Contains(err.Error(), "more than 64 brackets are open") {
			t.Errorf("%.40q: got the error %v, want one of line %d", text, err, line)
		}
	}
}

// TestBracketsInTexts: brackets that are closed, or in texts and comments, are no mistake.
func TestBracketsInTexts(t *testing.T) {
	many := strings.Repeat("[{", 100)
	closed := ""
	for i := range 100 {
		closed += fmt.Sprintf("k%d = [\"x\"]\n", i)
	}
	for _, text := range []string{
		`a = "` + many + `"`, `a = '` + many + `\'`, `a = "\"` + many + `"`, "a = \"\"\"\n\"" + many + `\""""`,
		"a = '''" + many + "\n'" + many + "'''", `a = "x" # "` + many, "a = [\"x\",\n#'" + many + "\n]", closed,
	} {
		at(t, text+"\nb = true\n")
		if f, err := Load(); err != nil || len(f.Settings) < 2 {
			t.Errorf("%.40q: %+v, error %v", text, f, err)
		}
	}
}
