package registry

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/address"
)

// What a proxy is asked for is judged by its text alone.
func TestWayByProxy(t *testing.T) {
	proxy := &url.URL{Scheme: "http", Host: "10.0.0.1:3128"}
	for _, allow := range []bool{false, true} {
		o := (&Options{AllowPrivate: allow, Proxy: http.ProxyURL(proxy)}).withDefaults()
		for target, want := range map[string]bool{
			"https://cdn.example/": true, "https://203.0.113.5/": true,
			"https://127.0.0.1/": allow, "https://127.1/": allow, "https://10.0.0.1:3128/": allow, "https://localhost/": allow,
			"https://10.0.0.５/": allow, "https://169。254。169。254/": allow, "https://ⓛocalhost/": allow, "https://xn--bcher-kva.example/": true,
		} {
			req, err := http.NewRequest(http.MethodGet, target, nil)
			if err != nil {
				t.Fatal(err)
			}
			by, err := newHostPool(o, nil).way(req, &wire{}, address.Public)
			var refused *refusal
			if got := err == nil; got != want || err != nil && !errors.As(err, &refused) {
				t.Errorf("%s, allowed %t: got error %v", target, allow, err)
			}
			if err == nil && by.proxy != proxy {
				t.Errorf("%s: goes by %v", target, by.proxy)
			}
		}
	}
}

// A server behind a proxy counts as near as its text says, and as public where
// that says nothing: it could else lead to all that is nearer.
func TestWatchByProxy(t *testing.T) {
	by := way{proxy: &url.URL{Scheme: "http", Host: "proxy.example:3128"}}
	for target, want := range map[string]address.Reach{
		"https://r.example/": address.Public, "https://bücher.example/": address.Public, "https://2130706433/": address.Public,
		"https://10.0.0.1/": address.Private, "https://localhost/": address.Machine,
	} {
		req, err := http.NewRequest(http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, peer := by.watch(req); *peer != want {
			t.Errorf("%s: got %s, want %s", target, *peer, want)
		}
	}
}

// A server that the user named may be anywhere, but not here after it was
// elsewhere.
func TestGate(t *testing.T) {
	home := new(home)
	for _, step := range []struct {
		addr   string
		g      *gate
		refuse bool
	}{
		{"127.0.0.1:5000", &gate{host: "r.example", limit: address.Any, home: home}, false},
		{"[::1]:5000", &gate{host: "r.example", limit: address.Any, home: home}, false},
		{"10.0.0.1:443", &gate{host: "r.example", limit: address.Any, home: home}, false},
		{"203.0.113.5:443", &gate{host: "r.example", limit: address.Any, home: home}, false},
		{"10.0.0.1:443", &gate{host: "r.example", limit: address.Any, home: home}, false},
		{"127.0.0.1:443", &gate{host: "r.example", limit: address.Any, home: home}, true},
		{"169.254.169.254:80", &gate{host: "r.example", limit: address.Any, home: home}, true},
		{"203.0.113.6:443", &gate{host: "c.example", limit: address.Public}, false},
		{"10.0.0.1:443", &gate{host: "c.example", limit: address.Public}, true},
		{"10.0.0.1:443", &gate{host: "c.example", limit: address.Private}, false},
		{"127.0.0.1:443", &gate{host: "c.example", limit: address.Private}, true},
		{"[fe80::1%eth0]:443", &gate{host: "c.example", limit: address.Private}, true},
		{"127.0.0.1:443", &gate{host: "c.example", limit: address.Machine}, false},
		{"224.0.0.1:443", &gate{host: "c.example", limit: address.Machine}, true},
		{"junk", &gate{host: "c.example", limit: address.Any}, true},
	} {
		if err := step.g.control("tcp", step.addr, nil); (err != nil) != step.refuse {
			t.Errorf("%s for %s within %s: got error %v, want one: %t", step.addr, step.g.host, step.g.limit, err, step.refuse)
		}
	}
	err := (&refusal{host: "c.example", addr: "127.0.0.1", reach: address.Machine}).fault("r.example")
	if want := "unavailable: refused address: r.example leads to c.example, which is 127.0.0.1, a loopback address"; err.Error() != want || !errors.Is(err, ErrPrivate) || !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("got error %v, want %s", err, want)
	}
}
