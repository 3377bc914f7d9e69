// Package scrub makes texts from elsewhere fit for a message.
package scrub

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/imgfs/imgfs/remote/printable"
)

var (
	addressPattern = regexp.MustCompile(`(https?://)([^\s/"'@]*@)?([^\s"'?]*)(\?[^\s"']*)?`)
	queryPattern   = regexp.MustCompile(`\?[^\s"'?=]*=[^\s"']*`)
	tokenPattern   = regexp.MustCompile(`\beyJ[\w-]{8,}\.[\w.-]+`) // RFC 7519
	// What stands in a header Authorization; and members of a query or form that
	// stand alone.
	bearerPattern = regexp.MustCompile(`(?i)\b(bearer|basic) [\w.~+/=-]{20,}`)
	namedPattern  = regexp.MustCompile(`(?i)\b\w*(?:password|passwd|secret|token|apikey|api_key)["']?:\s*["']?[^\s"'&;,]{8,}`)
	// What GitHub, GitLab, Docker, Slack, AWS and Google give out says so itself.
	issuedPattern = regexp.MustCompile(`\b(gh[a-z]_|github_pat_|glpat-|dckr_[a-z]{3}_|xox[a-z]-|AKIA|ASIA|ya29\.)[\w-]{12,}`)
	memberPattern = regexp.MustCompile(`(?i)\b(x-amz-[a-z-]+|x-goog-[a-z-]+|\w*(?:signature|password|passwd|secret|token|apikey|api_key)|sig|pwd)=[^\s"'&;,]+`)
)

// Text makes a text from elsewhere fit for a message: on one line, of bounded
// length, harmless to a terminal, and with nothing in it that opens a door.
// Signatures of storage servers are in the queries of URLs.
func Text(text string) string {
	const most = 400
	text = clean(text)
	if len(text) > most {
		return printable.Text(printable.Cut(text, most)) + "…"
	}
	return printable.Text(text)
}

// Words is Text for what a program says on stderr. Of a long text it has the
// beginning and the end: some say first what is wrong, and others last.
func Words(text string) string {
	const first, last = 120, 200
	text = clean(text)
	if len(text) <= first+last {
		return printable.Text(text)
	}
	end := text[len(text)-last:]
	for len(end) > 0 && !utf8.RuneStart(end[0]) {
		end = end[1:]
	}
	return printable.Text(printable.Cut(text, first)) + " … " + printable.Text(end)
}

// withoutNamed returns a name, a colon, and what stands behind it. That may be what
// is wrong with it as well: a secret has a digit.
func withoutNamed(text string) string {
	i := strings.IndexByte(text, ':') + 1
	value := strings.TrimLeft(text[i:], " \t\r\n\"'")
	if !strings.ContainsAny(value, "0123456789") {
		return text
	}
	return strings.TrimSuffix(text, value) + "…"
}

// clean returns a text on one line, without its secrets.
func clean(text string) string {
	text = addressPattern.ReplaceAllString(text, "$1$3")
	text = queryPattern.ReplaceAllString(text, "")
	text = tokenPattern.ReplaceAllString(text, "…")
	text = bearerPattern.ReplaceAllString(text, "$1 …")
	text = memberPattern.ReplaceAllString(text, "$1=…")
	text = namedPattern.ReplaceAllStringFunc(text, withoutNamed)
	text = issuedPattern.ReplaceAllString(text, "$1…")
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) }), " ")
}
