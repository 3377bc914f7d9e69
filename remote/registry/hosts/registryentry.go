package hosts

import (
	"fmt"
	"strings"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/address"
)

// hubHost serves the images of docker.io.
const hubHost = "registry-1.docker.io"

// entryFor returns the [[registry]] whose prefix fits a name best, or nil. The
// name is a repository's with its registry, and without tag and digest. Of
// prefixes that are equally long podman takes the first in their order.
func (c *Configuration) entryFor(name string) *registryEntry {
	return c.bestEntry(func(prefix string) bool { return matchPrefix(name, prefix) > 0 })
}

func (c *Configuration) bestEntry(fits func(prefix string) bool) *registryEntry {
	var best *registryEntry
	for prefix, e := range c.registries {
		better := best == nil || len(prefix) > len(best.prefix) || len(prefix) == len(best.prefix) && prefix < best.prefix
		if better && fits(prefix) {
			best = e
		}
	}
	return best
}

// matchPrefix returns how much of a reference a prefix stands for, 0 if it does
// not fit, by podman's rules: after it a colon, a slash or an @ must follow. So
// a host without a port fits any port.
func matchPrefix(text, prefix string) int {
	end := len(prefix)
	if domain, ok := strings.CutPrefix(prefix, "*"); ok {
		at := strings.Index(text, domain)
		if at < 0 || strings.Contains(text[:at], "/") {
			return 0
		}
		end = at + len(domain)
	} else if !strings.HasPrefix(text, prefix) {
		return 0
	}
	if end < len(text) && strings.IndexByte(":/@", text[end]) < 0 {
		return 0
	}
	return end
}

// blocked returns the error for an image that registries.conf forbids to pull.
// text is its name with its registry, and maybe with tag or digest. All that
// podman blocks is blocked, and more: capitals in the host get round podman, and
// it does not heed a prefix with a tag or digest.
func (c *Configuration) blocked(text string) error {
	name, _ := cutVersion(text)
	host, path, _ := strings.Cut(text, "/")
	lower := strings.ToLower(host) + "/" + path
	for _, e := range []*registryEntry{c.entryFor(name), c.bestEntry(func(prefix string) bool { return coversPrefix(lower, prefix) })} {
		if e != nil && e.Blocked {
			return &fault{ErrBlocked, fmt.Sprintf("%s forbids to pull %s", e.file, e.prefix)}
		}
	}
	return nil
}

// coversPrefix is matchPrefix for a reference with its host in lower case: the
// prefix's host counts as if it were, and a pattern fits each host that ends as
// it says.
func coversPrefix(lower, prefix string) bool {
	host, path, hasPath := strings.Cut(prefix, "/")
	prefix = strings.ToLower(host)
	if hasPath {
		prefix += "/" + path
	}
	if domain, ok := strings.CutPrefix(prefix, "*"); ok {
		host, _, _ := strings.Cut(lower, "/")
		return strings.HasSuffix(address.Hostname(host), domain)
	}
	return matchPrefix(lower, prefix) > 0
}

// entrySites returns the mirrors of a [[registry]] that may be asked for a
// reference of this kind, and its own location, without those that are blocked
// themselves.
func (c *Configuration) entrySites(e *registryEntry, ref remote.Reference) ([]*Site, error) {
	text := ref.String()
	rest := text[matchPrefix(text, e.prefix):]
	var sites []*Site
	var refused error
	add := func(text string, insecure bool, proxy proxyURL, push bool) error {
		s, err := e.site(text, insecure, proxy)
		if err != nil {
			return err
		}
		s.Push = push
		if err := c.blocked(text); err != nil {
			refused = err
		} else {
			sites = append(sites, s)
		}
		return nil
	}
	for _, m := range e.Mirrors {
		pull := m.Pull
		if e.ByDigestOnly {
			pull = pullDigestOnly
		}
		if pull == pullDigestOnly && ref.Digest == "" || pull == pullTagOnly && ref.Digest != "" {
			continue
		}
		if err := add(m.Location+rest, m.Insecure, m.Proxy, false); err != nil {
			return nil, err
		}
	}
	if e.Location != "" {
		text = e.Location + rest
	}
	if err := add(text, e.Insecure, e.Proxy, true); err != nil {
		return nil, err
	}
	if len(sites) == 0 {
		return nil, refused
	}
	return sites, nil
}

// site makes a site of the name that an entry leads to. It must be written out,
// as for podman: docker.io/fedora is not the name of docker.io/library/fedora.
func (e *registryEntry) site(text string, insecure bool, proxy proxyURL) (*Site, error) {
	ref, err := parseExact(text)
	if err != nil {
		return nil, configFault(e.file, fmt.Errorf("%s leads to %q, which is not the full name of an image with its registry", e.prefix, text))
	}
	s := Canonical(ref)
	s.Insecure, s.Wire.SkipVerify, s.Wire.Proxy = insecure, insecure, proxy.URL
	return s, nil
}

// parseExact reads a reference that is in its canonical form already. Docker
// Hub's other host counts as docker.io, and nothing is added to what it has.
func parseExact(text string) (remote.Reference, error) {
	rest, isHub := strings.CutPrefix(text, hubHost+"/")
	if isHub {
		text = "hub.invalid/" + rest
	}
	ref, err := remote.ParseReference(text)
	if err == nil && ref.String() != text {
		err = fmt.Errorf("%w: %q is not in full", remote.ErrReference, text)
	}
	if isHub {
		ref.Registry = "docker.io"
	}
	return ref, err
}
