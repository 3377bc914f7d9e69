package printable_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/imgfs/imgfs/remote/printable"
)

// hidden are runes that act on a terminal or are not to be seen, each for a kind.
const hidden = "\x00\t\n\v\f\r\x1b\x7f" + "\u0080\u0085\u009b\u009d\u009f" + // C0, DEL, C1
	"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" + // directions
	"\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u2060\u2061\u2064\u206a\u2800\u3164\ufeff\uffa0\ufff9\ufffb" + // nothing to be seen
	"\u00a0\u2003\u2028\u2029\u3000" + // spaces, lines, paragraphs
	"\ufe00\ufe0f\U000e0100" + // variants
	"\ue000\ufdd0\U000e0001\U000e0041\U000e007f\U0010ffff" // private, no characters, tags

// shown are texts that stay as they are.
var shown = []string{"a", "with space", `back\slash`, "grün", "日本", "😀", "e\u0301", "שלום", "\ufffd", "$HOME", `"quoted'`, "¿", "~"}

func TestText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"\x1b]0;x\a", `\x1b]0;x\a`},
		{"a\nb\tc\rd\x00", `a\nb\tc\rd\x00`},
		{"\x7f\u009b31m", `\x7f\u009b31m`},
		{"abc\u202efdp.exe", `abc\u202efdp.exe`},
		{"\u2028\u2029\ufeff", `\u2028\u2029\ufeff`},
		{"\U000e0041", `\U000e0041`},
		{"gr\xfcn \xff\xed\xa0\x80", `gr\xfcn \xff\xed\xa0\x80`},
		{"\xc2", `\xc2`},
		{`\x1b`, `\x1b`},
	} {
		if got := printable.Text(c.text); got != c.want {
			t.Errorf("Text(%q): got %s, want %s", c.text, got, c.want)
		}
	}
	for _, text := range shown {
		if got := printable.Text(text); got != text {
			t.Errorf("Text(%q): got %s, want it as it is", text, got)
		}
	}
	for _, r := range hidden {
		if got := printable.Text("a" + string(r) + "b"); !strings.HasPrefix(got, `a\`) || strings.ContainsRune(got, r) {
			t.Errorf("Text of %U: got %q", r, got)
		}
	}
}

// TestAllRunes looks at every rune there is.
func TestAllRunes(t *testing.T) {
	for r := range unicode.MaxRune + 1 {
		if !utf8.ValidRune(r) {
			continue
		}
		bad := unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Other_Default_Ignorable_Code_Point,
			unicode.Variation_Selector, unicode.Bidi_Control, unicode.Noncharacter_Code_Point, unicode.Join_Control)
		if got := printable.Harmless(string(r)); got && bad {
			t.Errorf("%U is harmless", r)
		} else if !got && unicode.In(r, unicode.L, unicode.Nd, unicode.P, unicode.Mc) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point) {
			t.Errorf("%U is not harmless", r)
		}
	}
}

func TestLine(t *testing.T) {
	long := strings.Repeat("é", 5000)
	for _, c := range []struct{ text, want string }{
		{"  a b\n\n", "a b"},
		{"a\n2020-01-01T00:00:00Z imgfs: /mnt: b", `a\n2020-01-01T00:00:00Z imgfs: /mnt: b`},
		{long, long[:4096] + "… (5904 more bytes)"},
		{"a" + long, "a" + long[:4094] + "… (5905 more bytes)"},
		{"", ""},
	} {
		if got := printable.Line(c.text); got != c.want {
			t.Errorf("Line(%.20q): got %q, want %q", c.text, got, c.want)
		}
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"a\x1b[31m", `$'a\033[31m'`},
		{"two\nlines", `$'two\nlines'`},
		{"\t\r", `$'\t\r'`},
		{"a\u202eb", `$'a\342\200\256b'`},
		{"gr\xfc1", `$'gr\3741'`},
		{`it's\` + "\x7f", `$'it\'s\\\177'`},
		{"$'a'", `$'$\'a\''`},
		{" a", `$' a'`},
		{"a ", `$'a '`},
		{"a  b", `$'a  b'`},
		{"", `$''`},
	} {
		if got := printable.Name(c.name); got != c.want {
			t.Errorf("Name(%q): got %s, want %s", c.name, got, c.want)
		}
	}
	for _, name := range shown {
		if got := printable.Name(name); got != name {
			t.Errorf("Name(%q): got %s, want it as it is", name, got)
		}
	}
}

func TestCell(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"a\tb", `$'a\tb'`},
		{strings.Repeat("x", 512), strings.Repeat("x", 512)},
		{strings.Repeat("x", 511) + "é", strings.Repeat("x", 511) + "…"},
	} {
		if got := printable.Cell(c.text); got != c.want {
			t.Errorf("Cell(%q): got %s, want %s", c.text, got, c.want)
		}
	}
}

func TestWord(t *testing.T) {
	for _, c := range []struct{ word, want string }{
		{"/mnt/fedora", "/mnt/fedora"},
		{"quay.io/a/b:c@sha256:d", "quay.io/a/b:c@sha256:d"},
		{"", "''"},
		{"a b", "'a b'"},
		{"it's", `'it'\''s'`},
		{"$(reboot)", "'$(reboot)'"},
		{"`reboot`", "'`reboot`'"},
		{"-rf", "./-rf"},
		{"-a b", "'./-a b'"},
		{"~", "'~'"},
		{"a\nb", `$'a\nb'`},
		{"-\x1b", `$'./-\033'`},
		{"grün", "grün"},
	} {
		if got := printable.Word(c.word); got != c.want {
			t.Errorf("Word(%q): got %s, want %s", c.word, got, c.want)
		}
	}
}

// TestShell has a shell read what Name and Word write.
func TestShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	words := append([]string{"gr\xfcn1", "it's\\\x7f", " a", "$(id)", "!!", "a;b", "[x]", "{a,b}", "a\\b", "#", "*", "\x1b0", "\xff1"}, shown...)
	for _, r := range strings.ReplaceAll(hidden, "\x00", "") {
		words = append(words, "7"+string(r)+"7")
	}
	var script strings.Builder
	for _, w := range words {
		if quoted := printable.Name(w); strings.HasPrefix(quoted, "$'") {
			script.WriteString("printf '%s\\0' " + quoted + "\n")
		} else {
			script.WriteString("printf '%s\\0' " + printable.Word(w) + "\n")
		}
		script.WriteString("printf '%s\\0' " + printable.Word(w) + "\n")
	}
	for _, locale := range []string{"C", "C.UTF-8"} {
		cmd := exec.Command(bash, "--norc", "-c", script.String())
		cmd.Env = []string{"LC_ALL=" + locale}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("bash: %v\n%s", err, out)
		}
		got := strings.Split(string(out), "\x00")
		if len(got) != 2*len(words)+1 {
			t.Fatalf("bash read %d words, want %d", len(got)-1, 2*len(words))
		}
		for i, w := range words {
			if got[2*i] != w || got[2*i+1] != w {
				t.Errorf("%s: bash read %q and %q, want %q: %s", locale, got[2*i], got[2*i+1], w, printable.Word(w))
			}
		}
	}
}

func TestJSON(t *testing.T) {
	for _, c := range []struct{ document, want string }{
		{`{"a":"b"}`, `{"a":"b"}`},
		{"\"\x7f\u009b\u202e\"", `"\u007f\u009b\u202e"`},
		{"\"\U000e0041\"", `"\udb40\udc41"`},
		{"\"\xff\xc3\"", `"\ufffd\ufffd"`},
		{`"\u009b"`, `"\u009b"`},
		{"{\r\n\t\"a\": 1\r}\n", "{\n    \"a\": 1}\n"},
		{"\"\x1b\"", `"\u001b"`},
	} {
		if got := string(printable.JSON([]byte(c.document))); got != c.want {
			t.Errorf("JSON(%q): got %s, want %s", c.document, got, c.want)
		}
	}
}

func TestWriter(t *testing.T) {
	var b bytes.Buffer
	n, err := printable.NewWriter(&b).Write([]byte("one\ntwo\x1b\n\n\x9b"))
	if want := "one\ntwo\\x1b\n\n\\x9b"; n != 11 || err != nil || b.String() != want {
		t.Errorf("got %d, error %v and %q, want 11 and %q", n, err, b.String(), want)
	}
}

// FuzzPrintable checks that nothing that acts comes through, that names stay
// apart, and that documents stay equal.
func FuzzPrintable(f *testing.F) {
	f.Add(hidden, "a\x1b")
	f.Add("$'a'", `a`)
	f.Add("a  b", "\xff")
	for _, s := range shown {
		f.Add(s, " "+s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for name, print := range map[string]func(string) string{"Text": printable.Text, "Line": printable.Line, "Name": printable.Name, "Cell": printable.Cell, "Word": printable.Word} {
			got := print(a)
			if !printable.Harmless(got) {
				t.Errorf("%s(%q): got %q, which is not harmless", name, a, got)
			}
			if name != "Cell" && name != "Word" && name != "Name" && print(got) != got && len(a) < 1000 {
				t.Errorf("%s(%q): a second time it is %q", name, a, print(got))
			}
		}
		if a != b && printable.Name(a) == printable.Name(b) {
			t.Errorf("%q and %q are both printed as %s", a, b, printable.Name(a))
		}
		checkDocument(t, map[string]any{a: b, "list": []any{a, b}})
	})
}

func checkDocument(t *testing.T, v any) {
	t.Helper()
	document, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	escaped := printable.JSON(document)
	if !printable.Harmless(strings.ReplaceAll(string(escaped), "\n", "")) {
		t.Errorf("%q is not harmless", escaped)
	}
	var want, got any
	if err := json.Unmarshal(document, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(escaped, &got); err != nil {
		t.Fatalf("%v in %q", err, escaped)
	}
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got)
	if !bytes.Equal(a, b) {
		t.Errorf("%q became %q", document, escaped)
	}
}
