package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/internal/address"
)

func TestCheckRange(t *testing.T) {
	for _, tc := range []struct {
		value        string
		length       int64
		off, n, want int64 // want -1: refused
	}{
		{"bytes 10-19/100", 10, 10, 10, 10},
		{"bytes 10-19/100", -1, 10, 10, 10},
		{"bytes 10-19/*", 10, 10, 10, 10},
		{"bytes 10-14/100", 5, 10, 10, 5},
		{"bytes 10-99/100", 90, 10, 10, 10},
		{"bytes 10-100/100", 91, 10, 10, -1},
		{"bytes 11-20/100", 10, 10, 10, -1},
		{"bytes 9-19/100", 11, 10, 10, -1},
		{"bytes 10-9/100", 0, 10, 10, -1},
		{"bytes 10-19/101", 10, 10, 10, -1},
		{"bytes 10-19/100", 11, 10, 10, -1},
		{"bytes 10-19/100", 0, 10, 10, -1},
		{"bytes */100", -1, 10, 10, -1},
		{"bytes 10-19", 10, 10, 10, -1},
		{"bytes=10-19/100", 10, 10, 10, -1},
		{"bytes -10-19/100", 10, 10, 10, -1},
		{"bytes 10-99999999999999999999/100", 10, 10, 10, -1},
		{"", 10, 10, 10, -1},
	} {
		got, err := checkRange(http.Header{"Content-Range": {tc.value}}, tc.length, tc.off, tc.n, 100)
		if err != nil {
			got = -1
		}
		if got != tc.want {
			t.Errorf("%q in a body of %d for %d bytes from %d: got %d (%v), want %d", tc.value, tc.length, tc.n, tc.off, got, err, tc.want)
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, tc := range []struct {
		value, date string
		want        time.Duration // -1: no use
	}{
		{"0", "", 0},
		{"7", "", 7 * time.Second},
		{"999999999999999999", "", 365 * 24 * time.Hour},
		{"99999999999999999999999", "", -1},
		{"-5", "", -1},
		{"soon", "", -1},
		{"", "", -1},
		{at(9 * time.Second), "", 9 * time.Second},
		{at(9 * time.Second), at(4 * time.Second), 5 * time.Second},
		{at(time.Hour + 9*time.Second), at(time.Hour), 9 * time.Second},
	} {
		got, ok := retryAfter(http.Header{"Retry-After": {tc.value}, "Date": {tc.date}}, now)
		if !ok {
			got = -1
		}
		if got != tc.want {
			t.Errorf("Retry-After %q, Date %q: got %s, want %s", tc.value, tc.date, got, tc.want)
		}
	}
}

// 16 and 18: where a redirect may lead, and for how long.
func TestRedirect(t *testing.T) {
	opts := (&Options{}).withDefaults()
	now := time.Now().UTC()
	stamp := func(d time.Duration) string { return now.Add(d).Format("20060102T150405Z") }
	const life, margin = 60 * time.Second, 5 * time.Second
	for _, tc := range []struct {
		from, location, want string // want "": refused
		home                 bool
		life                 time.Duration
	}{
		{"https://r.example/v2/a", "https://cdn.example/b", "https://cdn.example/b", false, life},
		{"https://r.example/v2/a", "/b", "https://r.example/b", true, life},
		{"https://r.example/v2/a", "b?c=d#e", "https://r.example/v2/b?c=d", true, life},
		{"https://r.example/v2/a", "https://r.example:443/b", "https://r.example:443/b", true, life},
		{"https://r.example/v2/a", "https://R.example/b", "https://R.example/b", true, life},
		{"https://r.example/v2/a", "https://r.example:444/b", "https://r.example:444/b", false, life},
		{"https://r.example/v2/a", "https://user:password@r.example/b", "https://r.example/b", true, life},
		{"https://r.example/v2/a", "//cdn.example/b", "https://cdn.example/b", false, life},
		{"https://r.example/v2/a", "http://cdn.example/b", "", false, 0},
		{"https://r.example/v2/a", "http://r.example/b", "https://r.example/b", true, life},
		{"http://localhost/v2/a", "http://localhost:80/b", "http://localhost:80/b", true, life},
		{"http://localhost/v2/a", "https://localhost/b", "https://localhost/b", false, life},
		{"http://localhost/v2/a", "http://127.0.0.1/b", "http://127.0.0.1/b", false, life},
		{"https://r.example/v2/a", "https://10.0.0.1/b", "https://10.0.0.1/b", false, life},
		{"https://r.example/v2/a", "ftp://cdn.example/b", "", false, 0},
		{"https://r.example/v2/a", "https:///b", "", false, 0},
		{"https://r.example/v2/a", "", "", false, 0},
		{"https://r.example/v2/a", "https://c.example/" + strings.Repeat("x", 16<<10), "", false, 0},
		{"https://r.example/v2/a", "https://c.example/?Expires=-500000000000", "=", false, -maxLocationLife},
		{"https://r.example/v2/a", "https://c.example/?Expires=500000000000", "=", false, maxLocationLife},
		{"https://r.example/v2/a", "https://c.example/?X-Amz-Date=" + stamp(0) + "&X-Amz-Expires=300", "=", false, 300 * time.Second},
		{"https://r.example/v2/a", "https://c.example/?X-Goog-Date=" + stamp(-time.Minute) + "&X-Goog-Expires=300", "=", false, 240 * time.Second},
		{"https://r.example/v2/a", "https://c.example/?Expires=" + fmt.Sprint(now.Add(100*time.Second).Unix()), "=", false, 100 * time.Second},
		{"https://r.example/v2/a", "https://c.example/?se=" + now.Add(100*time.Second).Format(time.RFC3339), "=", false, 100 * time.Second},
		{"https://r.example/v2/a", "https://c.example/?X-Amz-Date=junk&X-Amz-Expires=300", "=", false, life},
		{"https://r.example/v2/a", "https://c.example/?Expires=-1&X-Amz-Date=" + stamp(0), "=", false, -time.Duration(now.Unix()+1) * time.Second},
	} {
		u, err := url.Parse(tc.from)
		if err != nil {
			t.Fatal(err)
		}
		resp := &http.Response{Header: http.Header{"Location": {tc.location}, "Date": {now.Format(http.TimeFormat)}}}
		next, err := (&location{url: u, home: true}).redirect(resp, address.Private, func(*url.URL) bool { return false }, opts)
		if tc.want == "=" {
			tc.want = tc.location
		}
		if tc.want == "" || err != nil {
			if tc.want != "" || err == nil {
				t.Errorf("%s to %q: got %v and error %v, want %q", tc.from, tc.location, next, err, tc.want)
			}
			continue
		}
		if next.url.String() != tc.want || next.home != tc.home || next.limit != address.Private {
			t.Errorf("%s to %q: got %s, home %t, want %s, home %t", tc.from, tc.location, next.url, next.home, tc.want, tc.home)
		}
		if got := next.expires.Sub(now); got < tc.life-margin-time.Second || got > tc.life-margin+time.Second {
			t.Errorf("%s to %q: usable for %s, want %s", tc.from, tc.location, got, tc.life-margin)
		}
	}
}

// Where plain http after https is taken for https, refused, or allowed.
func TestSecured(t *testing.T) {
	for _, tc := range []struct {
		from, to, want string // want "": to if it is allowed, and else refused
	}{
		{"https://r.example/v2/", "https://t.example/a", "https://t.example/a"},
		{"http://r.example/v2/", "http://t.example/a", "http://t.example/a"},
		{"http://r.example/v2/", "https://r.example/a", "https://r.example/a"},
		{"https://r.example/v2/", "http://r.example/a?b=c", "https://r.example/a?b=c"},
		{"https://r.example/v2/", "http://R.example:80/a", "https://R.example/a"},
		{"https://r.example:443/v2/", "http://r.example/a", "https://r.example/a"},
		{"https://r.example/v2/", "http://r.example:443/a", "https://r.example:443/a"},
		{"https://r.example:5000/v2/", "http://r.example:5000/a", "https://r.example:5000/a"},
		{"https://[::1]/v2/", "http://[::1]:80/a", "https://[::1]/a"},
		{"https://r.example:5000/v2/", "http://r.example/a", ""},
		{"https://r.example/v2/", "http://r.example:5000/a", ""},
		{"https://r.example:5000/v2/", "http://r.example:5001/a", ""},
		{"https://r.example/v2/", "http://t.example/a", ""},
		{"https://r.example/v2/", "http://r.example.t.example/a", ""},
		{"https://r.example/v2/", "http://10.0.0.1/a", ""},
	} {
		from, err := url.Parse(tc.from)
		if err != nil {
			t.Fatal(err)
		}
		to, err := url.Parse(tc.to)
		if err != nil {
			t.Fatal(err)
		}
		for _, allowed := range []bool{false, true} {
			got, err := secured(from, to, func(*url.URL) bool { return allowed })
			want := tc.want
			if want == "" && allowed {
				want = tc.to
			}
			if (err == nil) != (want != "") || err == nil && got.String() != want {
				t.Errorf("%s to %s, allowed %t: got %v and error %v, want %q", tc.from, tc.to, allowed, got, err, want)
			}
		}
	}
}

func TestRetryBudget(t *testing.T) {
	count := func(p *retryBudget, v verdict) int {
		n := 1
		for n < 100 {
			if _, again := p.next(v); !again {
				return n
			}
			n++
		}
		return n
	}
	opts := (&Options{MinBackoff: time.Nanosecond, MaxBackoff: time.Nanosecond}).withDefaults()
	for _, tc := range []struct {
		name    string
		long    bool
		verdict verdict
		want    int
	}{
		{"final", true, final, 1}, {"busy", true, busy, 6}, {"odd", true, odd, 3},
		{"outage", false, outage, 3}, {"outage of a reader", true, outage, 100},
	} {
		p := newRetryBudget(opts, tc.long)
		if got := count(p, tc.verdict); got != tc.want {
			t.Errorf("%s: %d tries, want %d", tc.name, got, tc.want)
		}
		p.progress(1)
		if got := count(p, tc.verdict); got != 1 && tc.want < 100 {
			t.Errorf("%s after a byte: %d more tries, want 1", tc.name, got)
		}
		p.progress(1 << 20)
		if got := count(p, tc.verdict); got != tc.want {
			t.Errorf("%s after many bytes: %d tries, want %d", tc.name, got, tc.want)
		}
	}
	p := newRetryBudget(opts, true)
	p.since = time.Now().Add(-opts.ReadTimeout)
	if _, again := p.next(outage); again {
		t.Error("a read goes on after its time")
	}
}
