package registry

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// A reach says how near to this machine an address is. A server may lead to
// another one that is no nearer than itself.
type reach int

const (
	reachPublic  reach = iota
	reachPrivate       // in a network that the Internet has no way to
	reachLink          // on the same link, or where a cloud answers its machines
	reachMachine       // this machine
	reachNowhere       // no server can be there
	reachAny           // more than any address has: the user named the server
)

func (r reach) String() string {
	switch r {
	case reachPublic:
		return "public"
	case reachPrivate:
		return "private"
	case reachLink:
		return "link-local"
	case reachMachine:
		return "loopback"
	}
	return "reserved"
}

// A network is a part of the addresses, and its reach.
type network struct {
	netip.Prefix
	reach reach
}

func networkOf(prefix string, r reach) network { return network{netip.MustParsePrefix(prefix), r} }

// networks are those that are not public, of IANA's special-purpose address
// registries; the first that has an address decides. Those of
// documentation and of benchmarks are left out: programs that answer for all
// names of a machine give out addresses of 198.18.0.0/15.
var networks = []network{
	networkOf("127.0.0.0/8", reachMachine),
	networkOf("::1/128", reachMachine),
	networkOf("0.0.0.0/8", reachMachine), // Linux connects to itself
	networkOf("::/128", reachMachine),

	networkOf("169.254.0.0/16", reachLink),
	networkOf("fe80::/10", reachLink),
	// The metadata services of clouds that are elsewhere.
	networkOf("168.63.129.16/32", reachLink),   // Azure
	networkOf("100.100.100.200/32", reachLink), // Alibaba
	networkOf("192.0.0.192/32", reachLink),     // Oracle
	networkOf("fd00:ec2::/32", reachLink),      // Amazon
	networkOf("fd20:ce::254/128", reachLink),   // Google

	networkOf("10.0.0.0/8", reachPrivate),
	networkOf("172.16.0.0/12", reachPrivate),
	networkOf("192.168.0.0/16", reachPrivate),
	networkOf("100.64.0.0/10", reachPrivate),
	networkOf("192.0.0.0/24", reachPrivate),
	networkOf("fc00::/7", reachPrivate),
	networkOf("fec0::/10", reachPrivate),
	networkOf("64:ff9b:1::/48", reachPrivate), // RFC 8215

	networkOf("224.0.0.0/4", reachNowhere),
	networkOf("240.0.0.0/4", reachNowhere),
	networkOf("ff00::/8", reachNowhere),
}

// reachOf returns the reach of an address, or that of the IPv4 address within
// it if that is nearer.
func reachOf(addr netip.Addr) reach {
	addr = addr.Unmap().WithZone("")
	r := plainReach(addr)
	if inner, ok := translated(addr); ok {
		r = max(r, plainReach(inner))
	}
	return r
}

func plainReach(addr netip.Addr) reach {
	for _, n := range networks {
		if n.Contains(addr) {
			return n.reach
		}
	}
	return reachPublic
}

var (
	compatibleNet = netip.MustParsePrefix("::/96")
	translatedNet = netip.MustParsePrefix("::ffff:0:0:0/96")
	nat64Net      = netip.MustParsePrefix("64:ff9b::/96")
	sixToFourNet  = netip.MustParsePrefix("2002::/16")
	teredoNet     = netip.MustParsePrefix("2001::/32")
)

// translated returns the IPv4 address that packets to an IPv6 address are for
// where there is a translator or tunnel: RFC 4291, 2.5.5.1; RFC 2765; RFC 6052;
// RFC 3056; RFC 4380.
func translated(addr netip.Addr) (netip.Addr, bool) {
	b := addr.As16()
	switch {
	case !addr.Is6():
	case compatibleNet.Contains(addr), translatedNet.Contains(addr), nat64Net.Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixToFourNet.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:])), true
	case teredoNet.Contains(addr):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	}
	return netip.Addr{}, false
}

// literalReach returns the reach of a host, with or without a port, as far as
// its text tells: names are public but for those of this machine. Numbers in
// a form that only some programs take for an address are refused: a proxy may
// be one of them. So are letters and digits beyond ASCII, of which a URL that
// is sent has none: net/http makes 10.0.0.5 of wide digits when it asks a proxy
// to connect.
func literalReach(host string) reach {
	name := hostname(host)
	if addr, err := netip.ParseAddr(name); err == nil {
		return reachOf(addr)
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case isLoopback(name):
		return reachMachine
	case last == "", isNumber(last), !isASCII(name):
		return reachNowhere
	}
	return reachPublic
}

// isNumber tells whether a label is a number for who reads addresses as
// inet_aton(3) does.
func isNumber(label string) bool {
	digits := "0123456789"
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		label, digits = hex, digits+"abcdef"
	}
	return strings.Trim(label, digits) == ""
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
