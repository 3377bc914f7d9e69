package registry

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"html"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// What a server says of a request that it refuses stands in the body of its
// answer, in as many forms as there are servers. It is a stranger's text: one
// line of it is told, without what opens a door.

const (
	// maxHeard is how many bytes of such a body are read, and heardTime how long
	// that may take.
	maxHeard  = 8 << 10
	heardTime = time.Second
	// maxWords is how long a text may be that is told.
	maxWords = 300
)

// askerKey is for the *endpoint in the context of a request on its behalf.
type askerKey struct{}

// hear reads the body of an answer that is no success, and returns what it says.
// From then on the body is in memory, as far as it came.
func hear(resp *http.Response) (said string) {
	body := resp.Body
	timer := time.AfterFunc(heardTime, func() { body.Close() })
	// What came before an error says as much as it does.
	heard, _ := io.ReadAll(io.LimitReader(body, maxHeard))
	timer.Stop()
	resp.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(heard), body}
	return words(resp.Header.Get("Content-Type"), heard, sentWith(resp.Request))
}

// wordsOf returns what an answer that was heard says. It uses up the body.
func wordsOf(resp *http.Response) string {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxHeard)) // it is in memory
	return words(resp.Header.Get("Content-Type"), body, sentWith(resp.Request))
}

// sentWith returns what no message about an answer to a request may have.
func sentWith(req *http.Request) []string {
	secrets := secretsOf(req)
	if e, ok := req.Context().Value(askerKey{}).(*endpoint); ok {
		secrets = append(secrets, e.credentials.secrets()...)
	}
	if proxy := routeOf(req.Context()).proxy; proxy != nil {
		if password, ok := proxy.User.Password(); ok && len(password) >= minSecret {
			secrets = append(secrets, password)
		}
	}
	return secrets
}

// words returns what the body of a refusal says, in one line and without the
// secrets.
func words(contentType string, body []byte, secrets []string) string {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	mediaType, _, _ := mime.ParseMediaType(contentType)
	var said string
	switch {
	case len(body) == 0:
	case strings.HasSuffix(mediaType, "html") && body[0] == '<' || isPage(body):
		if said = title(body); said != "" {
			said = `a web page, "` + said + `"`
		}
	case body[0] == '{' || body[0] == '[' || body[0] == '"':
		var value any
		if json.Unmarshal(body, &value) == nil || json.Unmarshal(closed(body), &value) == nil {
			said = sayings(value, 0)
		}
	case body[0] == '<':
		said = xmlWords(body)
	case len(body) <= maxWords && utf8.Valid(body) && !bytes.ContainsRune(body, 0):
		said = string(body)
	}
	said = strings.TrimRight(scrub.Text(hide(said, secrets)), " .:;,")
	if len(said) > maxWords {
		// A word is not parted, as an escape could be.
		said = said[:maxWords]
		said = said[:max(strings.LastIndexByte(said, ' '), 0)] + "…"
	}
	return said
}

// closed returns JSON that is cut off with an end: a long answer is not read to its
// own. The last word may be part of a longer one, which nobody knows, and is left out.
func closed(body []byte) []byte {
	var ends []byte // of what is open
	word := -1      // where a text's last word begins; -1: it is no text
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case word >= 0 && c == '\\':
			i++
		case word >= 0 && c == ' ':
			word = i
		case c == '"' && word >= 0:
			word = -1
		case c == '"':
			word = i + 1
		case word >= 0:
		case c == '{' || c == '[':
			ends = append(ends, c+2) // which is its counterpart in ASCII
		case (c == '}' || c == ']') && len(ends) > 0:
			ends = ends[:len(ends)-1]
		}
	}
	slices.Reverse(ends)
	if word >= 0 {
		return slices.Concat(body[:word], []byte{'"'}, ends)
	}
	return slices.Concat(bytes.TrimRight(body, ", "), ends)
}

// maxSayings is how many errors of one answer are told.
const maxSayings = 3

// sayings returns what a value of JSON says: the texts that stand in the places
// where registries, their gateways and token servers put them.
func sayings(value any, depth int) string {
	if depth > 4 {
		return ""
	}
	switch v := value.(type) {
	case string:
		return strings.TrimSpace(v)
	case []any:
		var all []string
		for _, one := range v {
			if s := sayings(one, depth+1); s != "" && !slices.Contains(all, s) && len(all) < maxSayings {
				all = append(all, s)
			}
		}
		return strings.Join(all, "; ")
	case map[string]any:
		return objectSays(v, depth)
	}
	return ""
}

// objectSays is sayings of an object. OCI's distribution-spec has errors of
// code, message and detail; OAuth 2 has error and error_description; Google's
// error is an object; GitLab, Artifactory, Quay, AWS and others have message,
// error_message, Message, details or detail; RFC 9457 has title and detail.
func objectSays(members map[string]any, depth int) string {
	lower := make(map[string]any, len(members))
	for name, value := range members {
		if _, twice := lower[strings.ToLower(name)]; !twice || name == strings.ToLower(name) {
			lower[strings.ToLower(name)] = value
		}
	}
	for _, list := range []string{"errors", "error"} {
		if _, plain := lower[list].(string); plain {
			continue
		}
		if s := sayings(lower[list], depth+1); s != "" {
			return s
		}
	}
	text := func(names ...string) string {
		for _, name := range names {
			if s, ok := lower[name].(string); ok && strings.TrimSpace(s) != "" {
				return strings.TrimSpace(s)
			}
		}
		return ""
	}
	said := text("message", "error_description", "error_message", "errormessage", "msg", "title")
	if said == "" {
		said = text("error", "errors", "reason", "code", "__type", "error_type")
	}
	// Of details only what is written for people.
	if detail := text("detail", "details"); !strings.Contains(said, detail) {
		if said != "" {
			said = strings.TrimRight(said, " .:;") + ": "
		}
		said += detail
	}
	if said == "" {
		for _, name := range []string{"message", "detail", "details"} {
			if said = sayings(lower[name], depth+1); said != "" {
				break
			}
		}
	}
	return said
}

// xmlWords is what storage servers say: S3, GCS and Azure have an Error with
// Code and Message.
func xmlWords(body []byte) string {
	var e struct {
		XMLName xml.Name
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	decoder := xml.NewDecoder(bytes.NewReader(bytes.ToValidUTF8(body, []byte("\ufffd"))))
	// Declared encodings other than UTF-8 are those of ASCII text.
	decoder.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	if decoder.Decode(&e) != nil || !strings.EqualFold(e.XMLName.Local, "Error") {
		return ""
	}
	// Azure's go on with the request's number and time in lines of their own.
	message, _, _ := strings.Cut(strings.TrimSpace(e.Message), "\n")
	return cmp.Or(message, strings.TrimSpace(e.Code))
}

var (
	pagePattern  = regexp.MustCompile(`(?i)^(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|title|script|h1|center)\b`)
	titlePattern = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title`)

	headingPattern = regexp.MustCompile(`(?is)<h1[^>]*>(.*?)</h1`)
	tagPattern     = regexp.MustCompile(`<[^>]*>`)
)

// isPage reports whether the beginning of a body is that of a web page.
func isPage(body []byte) bool {
	return pagePattern.Match(bytes.TrimSpace(body[:min(len(body), 512)]))
}

// title returns the title of a web page, or its heading if it has none.
func title(page []byte) string {
	m := titlePattern.FindSubmatch(page)
	if m == nil {
		if m = headingPattern.FindSubmatch(page); m == nil {
			return ""
		}
	}
	return strings.Join(strings.Fields(html.UnescapeString(string(tagPattern.ReplaceAll(m[1], nil)))), " ")
}

// pageTitle is what follows the words "a web page" where one came in place of
// something else.
func pageTitle(resp *http.Response, page []byte) string {
	if t := title(page); t != "" {
		return `, "` + scrub.Text(hide(t, sentWith(resp.Request))) + `"`
	}
	return ""
}

// hide removes texts from what is said.
func hide(said string, secrets []string) string {
	// The longest first: one may be part of another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, s := range secrets {
		said = strings.ReplaceAll(said, s, "…")
	}
	return said
}

// sentCredentials are the credentials that an endpoint has sent. It is safe for
// concurrent use.
type sentCredentials struct {
	mu  sync.Mutex
	all []string
}

// note adds those of c, and forgets others: what expires is replaced.
func (s *sentCredentials) note(c hosts.Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc([]string{c.Password, c.IdentityToken, c.RegistryToken}, func(s string) bool { return len(s) < minSecret })
}

// secrets returns what no message may have of them.
func (s *sentCredentials) secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// minSecret is how long a text is at least that is looked for as a secret:
// shorter ones are part of words.
const minSecret = 4

// secretsOf returns what was sent with a request that an answer could say
// again: credentials, other headers, and what the query has.
func secretsOf(req *http.Request) []string {
	var secrets []string
	add := func(s string) {
		if len(s) >= minSecret {
			secrets = append(secrets, s)
		}
	}
	for name, values := range req.Header {
		switch name {
		case "Accept", "Accept-Encoding", "Cache-Control", "Content-Range", "Content-Type", "Range", "User-Agent":
			continue
		}
		for _, value := range values {
			add(value)
			_, rest, _ := strings.Cut(value, " ")
			add(rest)
			if plain, err := base64.StdEncoding.DecodeString(rest); err == nil {
				_, password, _ := strings.Cut(string(plain), ":")
				add(string(plain))
				add(password)
			}
		}
	}
	for name, values := range req.URL.Query() {
		switch name {
		case "ns", "last", "n", "digest", "service", "scope", "client_id", "account", "offline_token":
			continue
		}
		for _, value := range values {
			add(value)
		}
	}
	return secrets
}
