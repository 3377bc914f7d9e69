package hosts

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/address"
)

// A daemonJSON has the parts of docker's daemon.json that are used.
// https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
type daemonJSON struct {
	mirrors  []*url.URL // of Docker Hub
	insecure []string   // hosts, with the port
	networks []netip.Prefix
}

// readDaemonJSON reads the file. Mistakes in it are passed over, and logged:
// docker complains of them, and the file forbids nothing.
func readDaemonJSON(file string, logf func(format string, args ...any)) (d daemonJSON) {
	data, err := readConfig(file)
	if err != nil {
		logf("%v: passed over", configFault(file, err))
		return d
	}
	var content struct {
		Mirrors  []string `json:"registry-mirrors"`
		Insecure []string `json:"insecure-registries"`
	}
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff"))) // as dockerd does
	if len(data) == 0 {
		return d
	}
	if err := json.Unmarshal(data, &content); err != nil {
		logf("%v: passed over", configFault(file, err))
		return d
	}
	for _, text := range content.Mirrors {
		u, err := parseServer(text)
		if err == nil && (u.User != nil || u.RawQuery != "" || u.Fragment != "") {
			err = errors.New("there is more than host and path in the URL of a mirror")
		}
		if err != nil {
			logf("%v: passed over", configFault(file, err))
			continue
		}
		d.mirrors = append(d.mirrors, u)
	}
	for _, text := range content.Insecure {
		if network, err := netip.ParsePrefix(text); err == nil {
			d.networks = append(d.networks, network)
			continue
		}
		for _, scheme := range []string{"http://", "https://"} {
			text = strings.TrimPrefix(text, scheme)
		}
		d.insecure = append(d.insecure, strings.ToLower(text))
	}
	return d
}

// sites returns the mirrors of Docker Hub, if that has the image, and the
// registry.
func (d *daemonJSON) sites(ref remote.Reference) []*Site {
	last := Canonical(ref)
	if ref.Registry != dockerHub {
		d.relax(last)
		return []*Site{last}
	}
	var sites []*Site
	for _, u := range d.mirrors {
		s := Canonical(ref)
		s.Scheme, s.Host, s.Path = u.Scheme, u.Host, apiPath(u.Path, false)
		s.Ref.Registry, s.Push = u.Host, false
		d.relax(s)
		sites = append(sites, s)
	}
	return append(sites, last)
}

// relax lets a site that the file calls insecure be so. A network means the
// addresses in it, and not the names that lead there, unlike with docker: a name
// server could do away with a certificate.
func (d *daemonJSON) relax(s *Site) {
	addr, err := netip.ParseAddr(address.Hostname(s.Host))
	in := func(network netip.Prefix) bool { return err == nil && network.Contains(addr.Unmap()) }
	if slices.Contains(d.insecure, strings.ToLower(s.Host)) || slices.ContainsFunc(d.networks, in) {
		s.Insecure, s.Wire.SkipVerify = true, true
	}
}
