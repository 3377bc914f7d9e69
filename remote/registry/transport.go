package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// newTransport returns the connection pool for one host, "name" or
// "name:port".
func newTransport(o *Options, host string) (*http.Transport, error) {
	conf, err := tlsConfig(o, host)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: o.DialTimeout}
	return &http.Transport{
		Proxy:                 o.Proxy,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   o.DialTimeout,
		ResponseHeaderTimeout: o.HeaderTimeout,
		// The default of 2 makes every further reader dial anew.
		MaxIdleConnsPerHost: 2 * o.MaxRequests,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
		ForceAttemptHTTP2:   true,
		// A dead HTTP/2 connection is otherwise noticed only when the kernel
		// gives it up, and new requests go on being sent on it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: o.StallTimeout / 2, PingTimeout: o.StallTimeout / 2},
	}, nil
}

// tlsConfig returns the TLS settings for host with what CertDirs has for it.
func tlsConfig(o *Options, host string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.TLSVerify != nil && !*o.TLSVerify {
		conf.InsecureSkipVerify = true
	}
	for _, dir := range o.CertDirs {
		if !filepath.IsLocal(host) || host == "." {
			break // the name comes from a redirect
		}
		dir = filepath.Join(dir, host)
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) || os.IsPermission(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if err := addCertificate(conf, filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
		break
	}
	return conf, nil
}

// addCertificate adds one file of a certs.d directory to conf. Files that
// have no meaning there are ignored.
func addCertificate(conf *tls.Config, path string) error {
	switch filepath.Ext(path) {
	case ".crt":
		pem, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if conf.RootCAs == nil {
			if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
				conf.RootCAs = x509.NewCertPool()
			}
		}
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s: no certificate in it", path)
		}
	case ".cert":
		pair, err := tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".cert")+".key")
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		conf.Certificates = append(conf.Certificates, pair)
	}
	return nil
}

// defaultCertDirs returns where podman and docker keep certificates.
func defaultCertDirs() []string {
	dirs := []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append([]string{filepath.Join(home, ".config/containers/certs.d")}, dirs...)
	}
	return dirs
}

// isLoopback tells whether host, with or without a port, is this machine.
func isLoopback(host string) bool {
	name := hostname(host)
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// isLocal tells whether host is this machine or on its link, where no
// registry from elsewhere has a reason to send us.
func isLocal(host string) bool {
	if isLoopback(host) {
		return true
	}
	addr, err := netip.ParseAddr(hostname(host))
	return err == nil && (addr.Unmap().IsLinkLocalUnicast() || addr.Unmap().IsUnspecified())
}

// hostname returns host without port, brackets and zone, in lower case.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host, _, _ = strings.Cut(strings.Trim(host, "[]"), "%")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
