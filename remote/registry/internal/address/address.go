// Package address says how near to this machine a network address is, and
// takes the name of a server apart.
package address

import (
	"net"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// A Reach says how near to this machine an address is. A server may lead to
// another one that is no nearer than itself.
type Reach int

const (
	Public  Reach = iota
	Private       // in a network that the Internet has no way to
	Link          // on the same link, or where a cloud answers its machines
	Machine       // this machine
	Nowhere       // no server can be there
	Any           // more than any address has: the user named the server
)

func (r Reach) String() string {
	switch r {
	case Public:
		return "public"
	case Private:
		return "private"
	case Link:
		return "link-local"
	case Machine:
		return "loopback"
	}
	return "reserved"
}

// A network is a part of the addresses, and its reach.
type network struct {
	netip.Prefix
	reach Reach
}

func networkOf(prefix string, r Reach) network { return network{netip.MustParsePrefix(prefix), r} }

// networks are those that are not public, of IANA's special-purpose address
// registries; the first that has an address decides. Those of
// documentation and of benchmarks are left out: programs that answer for all
// names of a machine give out addresses of 198.18.0.0/15.
var networks = []network{
	networkOf("127.0.0.0/8", Machine),
	networkOf("::1/128", Machine),
	networkOf("0.0.0.0/8", Machine), // Linux connects to itself
	networkOf("::/128", Machine),

	networkOf("169.254.0.0/16", Link),
	networkOf("fe80::/10", Link),
	// The metadata services of clouds that are elsewhere.
	networkOf("168.63.129.16/32", Link),   // Azure
	networkOf("100.100.100.200/32", Link), // Alibaba
	networkOf("192.0.0.192/32", Link),     // Oracle
	networkOf("fd00:ec2::/32", Link),      // Amazon
	networkOf("fd20:ce::254/128", Link),   // Google

	networkOf("10.0.0.0/8", Private),
	networkOf("172.16.0.0/12", Private),
	networkOf("192.168.0.0/16", Private),
	networkOf("100.64.0.0/10", Private),
	networkOf("192.0.0.0/24", Private),
	networkOf("fc00::/7", Private),
	networkOf("fec0::/10", Private),
	networkOf("64:ff9b:1::/48", Private), // RFC 8215

	networkOf("224.0.0.0/4", Nowhere),
	networkOf("240.0.0.0/4", Nowhere),
	networkOf("ff00::/8", Nowhere),
}

// Of returns the reach of an address, or that of the IPv4 address within
// it if that is nearer.
func Of(addr netip.Addr) Reach {
	addr = addr.Unmap().WithZone("")
	r := plainReach(addr)
	if inner, ok := translated(addr); ok {
		r = max(r, plainReach(inner))
	}
	return r
}

func plainReach(addr netip.Addr) Reach {
	for _, n := range networks {
		if n.Contains(addr) {
			return n.reach
		}
	}
	return Public
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

// OfText returns the reach of a host, with or without a port, as far as
// its text tells: names are public but for those of this machine. Numbers in
// a form that only some programs take for an address are refused: a proxy may
// be one of them. So are letters and digits beyond ASCII, of which a URL that
// is sent has none: net/http makes 10.0.0.5 of wide digits when it asks a proxy
// to connect.
func OfText(host string) Reach {
	name := Hostname(host)
	if addr, err := netip.ParseAddr(name); err == nil {
		return Of(addr)
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case IsLoopback(name):
		return Machine
	case last == "", isNumber(last), !isASCII(name):
		return Nowhere
	}
	return Public
}

// isNumber tells whether a label is a number for programs that read addresses as
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

// IsLoopback tells whether host, with or without a port, is this machine.
func IsLoopback(host string) bool {
	name := Hostname(host)
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// Hostname returns host without port, brackets and zone, in lower case.
func Hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host, _, _ = strings.Cut(strings.Trim(host, "[]"), "%")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
