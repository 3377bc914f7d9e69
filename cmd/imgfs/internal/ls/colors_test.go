package ls

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseColors(t *testing.T) {
	for _, c := range []struct {
		text string
		kind string
		want string
	}{
		{"", "di", "01;34"}, {"di=1", "di", "1"}, {"ln=2:di=1", "di", "1"}, {"di=1:di=2", "di", "2"}, {"di=", "di", ""}, {"::di=1::", "di", "1"},
		{`di=\e[1m`, "di", "\x1b[1m"}, {`di=\033\x41\x4a\X4az`, "di", "\x1bAJJz"}, {`di=^[x^?^A`, "di", "\x1bx\x7f\x01"}, {`di=\a\b\f\n\r\t\v\?\_\:\=\\`, "di", "\a\b\f\n\r\t\v\x7f :=\\"},
		{`di=\x`, "di", "x"}, {`di=\`, "di", `\`}, {"di=^", "di", "^"}, {"zz=1:di=5", "di", "5"}, {"xyz=1:di=5", "di", "5"},
	} {
		got, err := parseColors(c.text)
		if err != nil || got.kinds[c.kind] != c.want {
			t.Errorf("%q: got %+v and error %v, want %q for %s", c.text, got, err, c.want, c.kind)
		}
	}
	for _, text := range []string{"di", "di:ln=1", "ln=1:*.gz", "*.gz:"} {
		if got, err := parseColors(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
	got, err := parseColors(`*.gz=1:*.tar.gz=2:*README=3:*\x2eZ=4`)
	if want := []ending{{".z", "4"}, {"readme", "3"}, {".tar.gz", "2"}, {".gz", "1"}}; err != nil || !slices.Equal(got.ends, want) {
		t.Errorf("got %q and error %v, want %q", got.ends, err, want)
	}
}

func TestCapabilities(t *testing.T) {
	c, err := parseColors("ca=7:ex=8")
	if err != nil {
		t.Fatal(err)
	}
	for capable, want := range map[bool]string{true: "7", false: "8"} {
		if got := c.of(colored{mode: unix.S_IFREG | 0o755, capable: func() bool { return capable }}); got != want {
			t.Errorf("a program with capabilities %t: got colour %q, want %q", capable, got, want)
		}
	}
}

func FuzzParseColors(f *testing.F) {
	for _, s := range []string{"di=01;34:*.gz=1", `di=\e[1m^?:*\x41=\`, "^=:\\=", "lc=\\", `a=\x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseColors(s)
		if (c == nil) != (err != nil) {
			t.Errorf("%q: got %+v and error %v", s, c, err)
		}
	})
}
