// Package scrub makes texts from elsewhere fit for a message.
package scrub

import (
	"regexp"
	"strings"

	"github.com/imgfs/imgfs/remote/printable"
)

var (
	addressPattern = regexp.MustCompile(`(https?://)([^\s/"'@]*@)?([^\s"'?]*)(\?[^\s"']*)?`)
	queryPattern   = regexp.MustCompile(`\?[^\s"'?=]*=[^\s"']*`)
)

// Text makes a text from elsewhere fit for a message: on one line, of bounded
// length, harmless to a terminal, and with nothing in it that opens a door.
// Signatures of storage servers are in the queries of URLs.
func Text(text string) string {
	const most = 400
	text = addressPattern.ReplaceAllString(text, "$1$3")
	text = queryPattern.ReplaceAllString(text, "")
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) }), " ")
	if len(text) > most {
		return printable.Text(printable.Cut(text, most)) + "…"
	}
	return printable.Text(text)
}
