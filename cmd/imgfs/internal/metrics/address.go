package metrics

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// An Address is where metrics are served: a port of this machine's own addresses, or a
// socket in the file system.
type Address struct {
	Network string // "tcp" or "unix"
	Name    string // HOST:PORT with a loopback address, or the path
}

// String writes it as ParseAddress reads it.
func (a Address) String() string {
	if a.Network == "unix" {
		return unixPrefix + a.Name
	}
	return a.Name
}

const unixPrefix = "unix:"

// ParseAddress reads HOST:PORT, where HOST is a loopback address or localhost, or unix:PATH.
// Metrics have no password, so other machines are not to reach them.
func ParseAddress(text string) (Address, error) {
	if path, ok := strings.CutPrefix(text, unixPrefix); ok {
		path = strings.TrimPrefix(path, "//") // as a URL has it
		if !strings.HasPrefix(path, "/") {
			return Address{}, fmt.Errorf("%q: the path of a socket begins with a slash, as in unix:/run/imgfs/metrics.sock", text)
		}
		return Address{"unix", path}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return Address{}, fmt.Errorf("%q: it is HOST:PORT or unix:PATH, as in 127.0.0.1:9753", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return Address{}, fmt.Errorf("%q: %q is no port", text, port)
	} else {
		port = strconv.FormatUint(n, 10)
	}
	if host == "localhost" { // whatever that is called here
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.Unmap().IsLoopback() {
		return Address{}, fmt.Errorf("%q: %q is no address that this machine alone can reach: 127.0.0.1, [::1] or unix:PATH; a proxy with a password can serve others", text, host)
	}
	return Address{"tcp", net.JoinHostPort(ip.String(), port)}, nil
}
