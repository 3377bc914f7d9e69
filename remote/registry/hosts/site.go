package hosts

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/imgfs/imgfs/remote"
)

// A SiteFunc returns the sites to ask for an image, in order; the last one has
// the last word. An empty list is an error. A client asks once for each of its repositories, and
// again after an error; the function may be called concurrently.
type SiteFunc func(ctx context.Context, ref remote.Reference) ([]*Site, error)

// A Site is a server that may have an image, as configuration describes it.
// It must not be changed once it was handed out.
type Site struct {
	// Scheme is "https" or "http". Default: https, or, if Insecure or the
	// client's options allow plain http, the one that the server speaks.
	Scheme string
	// Host is "name" or "name:port".
	Host string
	// Path is that of the API, mostly "/v2", without a slash at the end.
	Path string
	// Ref is the image's name there. Credentials are looked up by it,
	// so that none is sent to another registry than its own.
	Ref remote.Reference
	// Namespace is sent as ns: the registry that the server stands in for.
	// Default: none is sent.
	Namespace string
	// Resolve and Pull say that the server may be asked for the digest of a
	// tag, and for content by its digest.
	Resolve, Pull bool
	// Push says that the server may be written to. Only the last site of an
	// image ever is.
	Push bool
	// Insecure allows plain http and any certificate.
	Insecure bool
	// Header is sent with every request to the server itself.
	Header http.Header
	// Wire says how connections are made.
	Wire Wire
}

// A Wire says how connections are made on behalf of a site: its own, and
// those to its token server and its storage, which trust the same
// authorities, as with docker, podman and containerd. Client certificates are
// shown to its own host only. The zero Wire says nothing.
type Wire struct {
	// Authorities are files of certificates to trust besides the system's.
	Authorities []string
	// ClientCerts are pairs of files with a certificate and its key; the second
	// is "" if the first has both.
	ClientCerts [][2]string
	// SkipVerify takes any certificate.
	SkipVerify bool
	// DialTimeout bounds connecting. Default: that of the client's options.
	DialTimeout time.Duration
	// Proxy is the proxy for all of the connections. Default: the client's
	// options choose.
	Proxy *url.URL
}

// SaysTLS reports whether the wire says something of TLS.
func (w *Wire) SaysTLS() bool { return len(w.Authorities)+len(w.ClientCerts) > 0 || w.SkipVerify }

// Key returns a text that is the same for wires of a host that say the same.
func (w *Wire) Key(host string) string {
	return fmt.Sprint(host, w.Authorities, w.ClientCerts, w.SkipVerify, w.DialTimeout, w.Proxy)
}

// Canonical returns the registry that an image's name says, without any
// configuration. For docker.io that is the host that serves its images.
func Canonical(ref remote.Reference) *Site {
	return &Site{Host: apiHost(ref.Registry), Path: "/v2", Ref: ref, Resolve: true, Pull: true, Push: true}
}

// apiHost returns the host that serves the API of a registry. Docker Hub's
// is not the one it is named after.
func apiHost(registry string) string {
	if registry == dockerHub {
		return hubHost
	}
	return registry
}

// Sites implements SiteFunc. A hosts.toml of the registry itself goes before a
// [[registry]] that fits the image, that before a hosts.toml for all
// registries, and that before docker's daemon.json; but images that
// are blocked stay so.
func (c *Configuration) Sites(_ context.Context, ref remote.Reference) ([]*Site, error) {
	if err := c.blocked(ref.String()); err != nil {
		return nil, err
	}
	sites, err := c.hostSites(ref, hostDirNames(ref.Registry))
	if err != nil || sites != nil {
		return c.allowed(sites, err)
	}
	if e := c.entryFor(ref.Name()); e != nil {
		return c.entrySites(e, ref)
	}
	sites, err = c.hostSites(ref, []string{"_default"})
	if err != nil || sites != nil {
		return c.allowed(sites, err)
	}
	return c.allowed(c.docker.sites(ref), nil)
}

var _ SiteFunc = (*Configuration)(nil).Sites

// allowed leaves out the sites that are blocked by the names that the image
// has there.
func (c *Configuration) allowed(sites []*Site, err error) ([]*Site, error) {
	var kept []*Site
	var refused error
	for _, s := range sites {
		if e := c.blocked(s.Ref.String()); e != nil {
			refused = e
			continue
		}
		kept = append(kept, s)
	}
	if err == nil && len(kept) == 0 {
		err = refused
	}
	return kept, err
}
