package address

import (
	"net/netip"
	"testing"
)

func TestReachOf(t *testing.T) {
	for r, addrs := range map[Reach][]string{
		Public: {
			"203.0.113.5", "8.8.8.8", "172.15.0.1", "172.32.0.1", "192.167.1.1", "100.63.0.1", "100.128.0.1", "169.253.1.1", "198.18.0.1",
			"2001:db8::1", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2002:808:808::1", "::ffff:0:8.8.8.8", "2001:0:1:2:3:4:f7f7:f7f7",
		},
		Private: {
			"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12::1", "fec0::1", "64:ff9b:1::1",
			"::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::", "::ffff:0:c0a8:1", "2001:0:1:2:3:4:f5ff:fffe",
		},
		Link: {
			"169.254.169.254", "fe80::1", "fe80::1%eth0", "febf::1", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
			"::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::",
		},
		Machine: {
			"127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "::1", "::", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:0.0.0.0",
			"64:ff9b::127.0.0.1", "64:ff9b::", "2002:7f00:1::", "2001:0:1:2:3:4:80ff:fffe",
		},
		Nowhere: {"224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "ff02::1", "::ffff:224.0.0.1"},
	} {
		for _, addr := range addrs {
			if got := Of(netip.MustParseAddr(addr)); got != r {
				t.Errorf("%s: got %s, want %s", addr, got, r)
			}
		}
	}
}

func TestLiteralReach(t *testing.T) {
	for r, hosts := range map[Reach][]string{
		Public:  {"r.example", "r.example:5000", "1.2.3.example", "203.0.113.5:80", "[2001:db8::1]:443", "0xcafe.example", "deadbeef", "localhost.example"},
		Private: {"10.0.0.1", "192.168.0.1:5000", "[fd12::1]:443", "[::ffff:10.0.0.1]"},
		Link:    {"169.254.169.254", "[fe80::1%25eth0]:80", "[fe80::1%eth0]"},
		Machine: {"localhost", "x.localhost.", "LOCALHOST:1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.0.0.1."},
		Nowhere: {"127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.0x1", "r.example.0x", "127.1.", "", "255.255.255.255",
			"１０.0.0.5", "10。0。0。5", "127.0.0.①:443", "ｌocalhost", "local\u00adhost", "bücher.example"},
	} {
		for _, host := range hosts {
			if got := OfText(host); got != r {
				t.Errorf("%q: got %s, want %s", host, got, r)
			}
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:5000": true, "a.localhost": true, "127.0.0.1:1": true, "127.9.9.9": true, "[::1]:5000": true, "[::1]": true,
		"169.254.1.1": false, "localhost.example": false, "10.0.0.1": false, "128.0.0.1": false, "": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("%q: got %t, want %t", host, got, want)
		}
	}
}
