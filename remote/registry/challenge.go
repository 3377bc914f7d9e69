package registry

import (
	"net/http"
	"slices"
	"strings"
)

// The schemes of challenges that can be answered.
const (
	schemeBasic  = "basic"  // RFC 7617
	schemeBearer = "bearer" // RFC 6750
)

// A challenge is a way to log in that a server offers. RFC 9110, 11.3.
type challenge struct {
	scheme string            // in lower case
	params map[string]string // by names in lower case
}

// maxChallenges is how many of an answer are looked at.
const maxChallenges = 16

// challenges returns those of an answer's head. There can be several in a header,
// and several headers. What is malformed is passed over, up to where the next
// challenge seems to begin. RFC 9110, 11.6.1.
func challenges(header http.Header) []challenge {
	var all []challenge
	for _, value := range header.Values("WWW-Authenticate") {
		s := &challengeScanner{rest: value}
		s.scan()
		all = append(all, s.found...)
	}
	return all[:min(len(all), maxChallenges)]
}

// A challengeScanner reads one header.
type challengeScanner struct {
	rest  string
	found []challenge
}

// scan reads all of the header. Commas part challenges as well as parameters, so
// that a word is a parameter if = follows, and else a scheme.
func (s *challengeScanner) scan() {
	for len(s.found) <= maxChallenges {
		s.rest = strings.TrimLeft(s.rest, ", \t")
		if s.rest == "" {
			return
		}
		word := s.token()
		if word == "" {
			s.skip()
			continue
		}
		if after := strings.TrimLeft(s.rest, " \t"); strings.HasPrefix(after, "=") {
			s.rest = after[1:]
			s.param(strings.ToLower(word))
			continue
		}
		s.found = append(s.found, challenge{scheme: strings.ToLower(word), params: make(map[string]string)})
		s.token68()
	}
}

// param reads the value of a parameter. Of several of a name the first counts.
// Values that should be quoted and are not, such as URLs, end with a comma or
// space.
func (s *challengeScanner) param(name string) {
	s.rest = strings.TrimLeft(s.rest, " \t")
	value, ok := "", true
	if strings.HasPrefix(s.rest, `"`) {
		value, ok = s.quoted()
	} else {
		end := strings.IndexAny(s.rest+",", ", \t")
		value, s.rest = s.rest[:end], s.rest[end:]
	}
	if len(s.found) == 0 {
		return
	}
	last := &s.found[len(s.found)-1]
	if !ok {
		s.found = s.found[:len(s.found)-1] // nobody knows where it ends
		return
	}
	if _, twice := last.params[name]; !twice {
		last.params[name] = value
	}
}

// token reads a word, "" if there is none. RFC 9110, 5.6.2.
func (s *challengeScanner) token() string {
	word := s.rest
	if i := strings.IndexFunc(s.rest, func(r rune) bool { return !isTokenChar(r) }); i >= 0 {
		word = s.rest[:i]
	}
	s.rest = s.rest[len(word):]
	return word
}

func isTokenChar(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// quoted reads a quoted string. RFC 9110, 5.6.4.
func (s *challengeScanner) quoted() (string, bool) {
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '"':
			s.rest = s.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(s.rest):
			i++
			b.WriteByte(s.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	s.rest = ""
	return "", false
}

// token68 passes over what a scheme such as Negotiate has in place of parameters.
func (s *challengeScanner) token68() {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/"
	after := strings.TrimLeft(s.rest, " \t")
	tail := strings.TrimLeft(strings.TrimLeft(after, letters), "=")
	if tail == "" || strings.HasPrefix(strings.TrimLeft(tail, " \t"), ",") {
		s.rest = tail
	}
}

// skip passes over what is malformed, up to the next comma that is not quoted.
func (s *challengeScanner) skip() {
	for s.rest != "" && s.rest[0] != ',' {
		if s.rest[0] == '"' {
			s.quoted()
			continue
		}
		s.rest = s.rest[1:]
	}
}

// schemes returns the names of the schemes of challenges, each once.
func schemes(all []challenge) []string {
	var names []string
	for _, c := range all {
		if !slices.Contains(names, c.scheme) {
			names = append(names, c.scheme)
		}
	}
	return names
}
