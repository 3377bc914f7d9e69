package registry

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/imgfs/imgfs/remote/registry/internal/address"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

const (
	// maxLocation is how long the URL of a redirect may be: one is kept for each
	// blob.
	maxLocation = 16 << 10
	// maxLocationLife bounds the life that a URL may say it has: times far away
	// would overflow.
	maxLocationLife = 100 * 365 * 24 * time.Hour
)

// A location is an address that a request can be sent to.
type location struct {
	url     *url.URL
	home    bool          // it is the registry's, which gets the credential
	limit   address.Reach // the nearest address that the server may have
	named   bool          // the user named it: it may have any
	expires time.Time     // when not to use it any more; zero: never
}

// redirect returns where resp, an answer of l, sends us. The server that
// answered leads no nearer than limit, and from https to http only if plain
// allows it.
func (l *location) redirect(resp *http.Response, limit address.Reach, plain func(*url.URL) bool, o *Options) (*location, error) {
	if n := len(resp.Header.Get("Location")); n > maxLocation {
		return nil, oddf("%s answers with a redirect to a URL of %d bytes", l.url.Host, n)
	}
	next, err := l.url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" || next.Host == "" {
		return nil, oddf("%s answers with a redirect to nowhere", l.url.Host)
	}
	next.User, next.Fragment = nil, ""
	if next.Scheme != "https" && next.Scheme != "http" {
		return nil, oddf("%s redirects from %s to %s", l.url.Host, l.url.Scheme, scrub.Text(next.Scheme))
	}
	if next, err = secured(l.url, next, plain); err != nil {
		return nil, err
	}
	now := time.Now()
	serverNow := now
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		serverNow = date
	}
	life := o.LocationLife
	if end, ok := expiry(next.Query()); ok {
		life = min(max(end.Sub(serverNow), -maxLocationLife), maxLocationLife)
	}
	expires := now.Add(life - o.LocationMargin)
	if !l.expires.IsZero() && l.expires.Before(expires) {
		expires = l.expires
	}
	return &location{url: next, home: l.home && sameOrigin(l.url, next), limit: limit, expires: expires}, nil
}

// expiry reads from the query of a signed URL when it expires, by the clock of
// the server that signed it: S3 and GCS; CloudFront and the older signatures of both;
// Azure.
func expiry(query url.Values) (time.Time, bool) {
	for _, prefix := range []string{"X-Amz-", "X-Goog-"} {
		signed, err := time.Parse("20060102T150405Z", query.Get(prefix+"Date"))
		seconds, err2 := strconv.ParseUint(query.Get(prefix+"Expires"), 10, 31)
		if err == nil && err2 == nil {
			return signed.Add(time.Duration(seconds) * time.Second), true
		}
	}
	if at, err := strconv.ParseInt(query.Get("Expires"), 10, 40); err == nil {
		return time.Unix(at, 0), true
	}
	at, err := time.Parse(time.RFC3339, query.Get("se"))
	return at, err == nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && address.Hostname(a.Host) == address.Hostname(b.Host) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}
