package registry

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/imgfs/imgfs/remote"
)

func TestReachOf(t *testing.T) {
	for r, addrs := range map[reach][]string{
		reachPublic: {
			"203.0.113.5", "8.8.8.8", "172.15.0.1", "172.32.0.1", "192.167.1.1", "100.63.0.1", "100.128.0.1", "169.253.1.1", "198.18.0.1",
			"2001:db8::1", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2002:808:808::1", "::ffff:0:8.8.8.8", "2001:0:1:2:3:4:f7f7:f7f7",
		},
		reachPrivate: {
			"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12::1", "fec0::1", "64:ff9b:1::1",
			"::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::", "::ffff:0:c0a8:1", "2001:0:1:2:3:4:f5ff:fffe",
		},
		reachLink: {
			"169.254.169.254", "fe80::1", "fe80::1%eth0", "febf::1", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
			"::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::",
		},
		reachMachine: {
			"127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "::1", "::", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0.0.0.0",
			"64:ff9b::127.0.0.1", "64:ff9b::", "2002:7f00:1::", "2001:0:1:2:3:4:80ff:fffe",
		},
		reachNowhere: {"224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "ff02::1", "::ffff:224.0.0.1"},
	} {
		for _, addr := range addrs {
			if got := reachOf(netip.MustParseAddr(addr)); got != r {
				t.Errorf("%s: got %s, want %s", addr, got, r)
			}
		}
	}
}

func TestLiteralReach(t *testing.T) {
	for r, hosts := range map[reach][]string{
		reachPublic:  {"r.example", "r.example:5000", "1.2.3.example", "203.0.113.5:80", "[2001:db8::1]:443", "0xcafe.example", "deadbeef", "localhost.example"},
		reachPrivate: {"10.0.0.1", "192.168.0.1:5000", "[fd12::1]:443", "[::ffff:10.0.0.1]"},
		reachLink:    {"169.254.169.254", "[fe80::1%25eth0]:80", "[fe80::1%eth0]"},
		reachMachine: {"localhost", "x.localhost.", "LOCALHOST:1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.0.0.1."},
		reachNowhere: {"127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.0x1", "r.example.0x", "127.1.", "", "255.255.255.255",
			"１０.0.0.5", "10。0。0。5", "127.0.0.①:443", "ｌocalhost", "local\u00adhost", "bücher.example"},
	} {
		for _, host := range hosts {
			if got := literalReach(host); got != r {
				t.Errorf("%q: got %s, want %s", host, got, r)
			}
		}
	}
}

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
			by, err := newHosts(o).way(req, &wire{}, reachPublic)
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
	for target, want := range map[string]reach{
		"https://r.example/": reachPublic, "https://bücher.example/": reachPublic, "https://2130706433/": reachPublic,
		"https://10.0.0.1/": reachPrivate, "https://localhost/": reachMachine,
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
		{"127.0.0.1:5000", &gate{host: "r.example", limit: reachAny, home: home}, false},
		{"[::1]:5000", &gate{host: "r.example", limit: reachAny, home: home}, false},
		{"10.0.0.1:443", &gate{host: "r.example", limit: reachAny, home: home}, false},
		{"203.0.113.5:443", &gate{host: "r.example", limit: reachAny, home: home}, false},
		{"10.0.0.1:443", &gate{host: "r.example", limit: reachAny, home: home}, false},
		{"127.0.0.1:443", &gate{host: "r.example", limit: reachAny, home: home}, true},
		{"169.254.169.254:80", &gate{host: "r.example", limit: reachAny, home: home}, true},
		{"203.0.113.6:443", &gate{host: "c.example", limit: reachPublic}, false},
		{"10.0.0.1:443", &gate{host: "c.example", limit: reachPublic}, true},
		{"10.0.0.1:443", &gate{host: "c.example", limit: reachPrivate}, false},
		{"127.0.0.1:443", &gate{host: "c.example", limit: reachPrivate}, true},
		{"[fe80::1%eth0]:443", &gate{host: "c.example", limit: reachPrivate}, true},
		{"127.0.0.1:443", &gate{host: "c.example", limit: reachMachine}, false},
		{"224.0.0.1:443", &gate{host: "c.example", limit: reachMachine}, true},
		{"junk", &gate{host: "c.example", limit: reachAny}, true},
	} {
		if err := step.g.control("tcp", step.addr, nil); (err != nil) != step.refuse {
			t.Errorf("%s for %s within %s: got error %v, want one: %t", step.addr, step.g.host, step.g.limit, err, step.refuse)
		}
	}
	err := (&refusal{host: "c.example", addr: "127.0.0.1", reach: reachMachine}).fault("r.example")
	if want := "unavailable: refused address: r.example leads to c.example, which is 127.0.0.1, a loopback address"; err.Error() != want || !errors.Is(err, ErrPrivate) || !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("got error %v, want %s", err, want)
	}
}
