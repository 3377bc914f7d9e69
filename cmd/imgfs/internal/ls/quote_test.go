package ls

import "testing"

func FuzzQuote(f *testing.F) {
	f.Add("it's")
	f.Add("\x1b\u202e' \n\xff*:")
	f.Fuzz(func(t *testing.T, name string) {
		for style, quoting := range quotings {
			for _, also := range []string{"", ":", "*=>@|", "=>@| "} {
				q := quoter{quoting: quoting, mark: true, also: also}
				if text, _ := q.quote(name); marked(text) != text {
					t.Errorf("%q as %s is %q, which acts on a terminal", name, style, text)
				}
			}
		}
		if w := width(name); w < 0 || w > 2*len(name) {
			t.Errorf("%q takes %d columns", name, w)
		}
	})
}
