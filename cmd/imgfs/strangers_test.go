//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// What strangers write in these tests: all that must not come out as it is, and
// a line that looks like one of imgfs. Names have no zero byte and no slash, and
// documents are UTF-8.
const (
	strangeText = "\x1b]0;title\x07\x1b[31m\u009b31m\x7f\u202e\u2066\u200f\u061c\ufeff\u200b\u2060\U000e0041\ufe0f\u2028\u2029\u00a0\u3164\t\r\nimgfs: forged\n'\"\\$(id)`id`  "
	strangeName = strangeText + "\xff\xc3"
)

// strange returns a text of a stranger that id can be found by.
func strange(id string) string { return id + strangeText }

// forbidden returns what of an output acts on a terminal, is not to be seen, or
// is no UTF-8: "" if there is no such thing. It is written down here apart from
// what it judges.
func forbidden(out string) string {
	for i, n := 0, 0; i < len(out); i += n {
		var r rune
		r, n = utf8.DecodeRuneInString(out[i:])
		switch {
		case r == utf8.RuneError && n == 1,
			r < 0x20 && r != '\n', r >= 0x7f && r < 0xa0,
			r == 0x00a0, r == 0x00ad, r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069,
			r >= 0x200b && r <= 0x200d, r >= 0x2060 && r <= 0x2064, r == 0xfeff, r == 0x2028, r == 0x2029, r == 0x3164,
			r >= 0xfe00 && r <= 0xfe0f, r >= 0xe0000 && r <= 0xe0fff:
			return fmt.Sprintf("%q at %q", out[i:i+n], out[max(0, i-60):min(len(out), i+60)])
		}
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "imgfs: forged") {
			return fmt.Sprintf("the line %q", line)
		}
	}
	return ""
}

func checkHarmless(t testing.TB, what, out string) {
	t.Helper()
	if bad := forbidden(out); bad != "" {
		t.Errorf("%s printed %s", what, bad)
	}
}

// screenOf runs a command with a terminal for stdout and stderr, whatever its
// end, and returns what it wrote. What draws bars is left out of it.
func screenOf(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	screen := onTerminal(t, func(tty *os.File) int {
		cmd.Stdout, cmd.Stderr = tty, tty
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		return 0
	})
	return bars.ReplaceAllString(strings.ReplaceAll(screen, "\r\n", "\n"), "")
}

// bars is what bars are drawn with: the cursor goes up, and the screen below is
// cleared.
var bars = regexp.MustCompile(`\x1b\[[0-9]*[AJ]`)

// both runs imgfs with pipes and with a terminal, and checks that what it says is
// harmless. Of stdout to a pipe that is asked for byte for byte it looks at
// nothing. It returns all that was printed.
func (s *sandbox) both(t *testing.T, args ...string) string {
	t.Helper()
	r := s.run(args...)
	all := r.stderr
	checkHarmless(t, fmt.Sprintf("imgfs %q, on stderr,", args), r.stderr)
	if !isExact(args) {
		checkHarmless(t, fmt.Sprintf("imgfs %q", args), r.stdout)
		all += r.stdout
	}
	screen := screenOf(t, s.command(args...))
	checkHarmless(t, fmt.Sprintf("imgfs %q, on a terminal,", args), screen)
	return all + screen
}

// isExact tells whether a command copies bytes to a pipe.
func isExact(args []string) bool {
	for _, a := range args {
		switch a {
		case "ls":
			return args[0] != "cache"
		case "cat", "--raw", "--config":
			return true
		}
	}
	return false
}

// fill sets all that a value has: texts to those of strangers, which have the
// place in it where they are, lists and maps to two things.
func fill(v reflect.Value, place string, text func(place string) string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text(place))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(1 << 30)
	case reflect.Uint32, reflect.Uint64, reflect.Uint8:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(1e300)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), place, text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), fmt.Sprint(place, i), text)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, fmt.Sprint(place, "Key", i), text)
			fill(value, fmt.Sprint(place, "Value", i), text)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_700_000_000, 0).UTC()))
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); (f.IsExported() || f.Anonymous) && !holdsBytes(f.Type) {
				fill(v.Field(i), place+f.Name, text)
			}
		}
	default:
		panic("nothing fills " + v.Type().String())
	}
}

// filled returns a T that strangers have filled.
func filled[T any](text func(place string) string) T {
	var v T
	fill(reflect.ValueOf(&v).Elem(), "", text)
	return v
}

// places returns the places that fill has for texts in a T.
func places[T any]() (all []string) {
	filled[T](func(place string) string {
		all = append(all, place)
		return place
	})
	return all
}

// withJSON returns v as any reader of JSON has it.
func withJSON(t *testing.T, v any) (generic any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &generic); err != nil {
		t.Fatal(err)
	}
	return generic
}

// strangeDir makes a directory with a strange name, which is unmounted at the
// end.
func (s *sandbox) strangeDir() string {
	s.t.Helper()
	dir := filepath.Join(s.dir, "mnt"+strings.ReplaceAll(strangeName, "/", ""))
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err == nil {
			s.t.Errorf("%q was still mounted", dir)
		}
	})
	return dir
}

// lines returns how many lines an output has.
func lines(out []byte) int { return bytes.Count(out, []byte("\n")) }
