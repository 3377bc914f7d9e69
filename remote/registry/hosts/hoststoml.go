package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// A hostTable has the settings of one server in containerd's hosts.toml.
// https://github.com/containerd/containerd/blob/main/docs/hosts.md
type hostTable struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`     // a path or several
	Client       any            `toml:"client"` // a path, or several paths or pairs of them
	SkipVerify   bool           `toml:"skip_verify"`
	Header       map[string]any `toml:"header"` // each a string or several
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
	Proxy        proxyURL       `toml:"proxy"`
	Own          ownTable       `toml:"imgfs"` // only outside of the tables
}

// A hostsFile is a hosts.toml. Settings outside of the tables are the server's.
type hostsFile struct {
	hostTable
	Server string               `toml:"server"`
	Hosts  map[string]hostTable `toml:"host"`

	indexRepos []string
}

// hostDirNames returns the names that a registry's directory may have in
// containerd's certs.d.
func hostDirNames(host string) []string {
	if name, port, ok := cutPort(host); ok {
		return []string{name + "_" + port + "_", host}
	}
	return []string{host}
}

func cutPort(host string) (name, port string, ok bool) {
	i := strings.LastIndexByte(host, ':')
	if i <= 0 || strings.HasSuffix(host, "]") {
		return host, "", false
	}
	return host[:i], host[i+1:], true
}

// hostSites returns the sites of the hosts.toml in the first directory of these
// names, nil if there is none.
func (c *Configuration) hostSites(ref remote.Reference, names []string) ([]*Site, error) {
	dir, data, err := c.findHosts(names)
	if data == nil {
		return nil, err
	}
	sites, err := c.parseHosts(dir, data, ref)
	if err != nil {
		return nil, configFault(hostsPath(dir), err)
	}
	return sites, nil
}

func hostsPath(dir string) string { return filepath.Join(dir, "hosts.toml") }

// findHosts returns the content of the hosts.toml in the first directory of these
// names, nil if there is none: the directory may hold certificates only. One that only
// a daemon may read is not there for the user.
func (c *Configuration) findHosts(names []string) (dir string, data []byte, err error) {
	for _, root := range c.hostDirs {
		for _, name := range names {
			if !filepath.IsLocal(name) || name == "." {
				continue
			}
			dir := filepath.Join(root, name)
			if _, err := os.Stat(dir); isAbsent(err) {
				continue
			}
			file := hostsPath(dir)
			data, err := readConfig(file)
			switch {
			case errors.Is(err, fs.ErrPermission):
				c.logf("%s is passed over: it may not be read", file)
				return "", nil, nil
			case isAbsent(err), err == nil && len(data) == 0:
				return "", nil, nil
			case err != nil:
				return "", nil, configFault(file, err)
			}
			return dir, data, nil
		}
	}
	return "", nil, nil
}

// decodeHosts reads a hosts.toml.
func decodeHosts(data []byte) (*hostsFile, toml.MetaData, error) {
	file := new(hostsFile)
	known, err := toml.Decode(string(data), file)
	if err == nil {
		err = file.checkOwn()
	}
	return file, known, err
}

// parseHosts reads a hosts.toml that lies in dir: the hosts in the order they
// stand there, and the server after them.
func (c *Configuration) parseHosts(dir string, data []byte, ref remote.Reference) ([]*Site, error) {
	file, known, err := decodeHosts(data)
	if err != nil {
		return nil, err
	}
	var sites []*Site
	done := make(map[string]bool)
	for _, key := range known.Keys() {
		if len(key) < 2 || key[0] != "host" || done[key[1]] {
			continue
		}
		done[key[1]] = true
		s, err := c.hostSite(dir, key[1], file.Hosts[key[1]], ref)
		if err != nil {
			return nil, err
		}
		s.Push = false // a mirror
		sites = append(sites, s)
	}
	last, err := c.hostSite(dir, file.Server, file.hostTable, ref)
	if err != nil {
		return nil, err
	}
	return appendServer(sites, last), nil
}

// appendServer adds the server. Often it is the last of the hosts, named
// there for its certificates: then it is that one, as asking it a second time
// without them would be of no use.
func appendServer(sites []*Site, last *Site) []*Site {
	for i, s := range sites {
		if s.Host != last.Host || s.Path != last.Path || s.Scheme != last.Scheme && last.Scheme != "" {
			continue
		}
		if i == len(sites)-1 && s.Pull && s.Resolve {
			s.Push = last.Push
			return sites
		}
		if !last.Wire.SaysTLS() {
			last.Wire, last.Scheme = s.Wire, s.Scheme
		}
	}
	return append(sites, last)
}

// hostSite makes a site of one table; server is its URL, "" the registry's
// own.
func (c *Configuration) hostSite(dir, server string, t hostTable, ref remote.Reference) (*Site, error) {
	s := Canonical(ref)
	if server != "" {
		u, err := parseServer(server)
		if err != nil {
			return nil, err
		}
		s.Scheme, s.Host, s.Path = u.Scheme, apiHost(u.Host), apiPath(u.Path, t.OverridePath)
		if s.Host != apiHost(ref.Registry) {
			s.Ref.Registry, s.Namespace = u.Host, ref.Registry
		}
	}
	if len(t.Capabilities) > 0 {
		s.Resolve, s.Pull, s.Push = false, false, false
		for _, word := range t.Capabilities {
			switch strings.ToLower(word) {
			case "pull":
				s.Pull = true
			case "resolve":
				s.Resolve = true
			case "push":
				s.Push = true
			}
		}
	}
	err := t.wire(dir, &s.Wire)
	if err == nil {
		s.Header, err = t.header()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Host, err)
	}
	if s.Scheme == "http" && s.Wire.SaysTLS() {
		// containerd tries https first then.
		s.Scheme, s.Insecure = "", true
	}
	return s, nil
}

func parseServer(server string) (*url.URL, error) {
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%q is not the URL of a server", scrub.Text(server))
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// apiPath returns where a server has its API.
func apiPath(p string, override bool) string {
	if p = strings.TrimSuffix(path.Clean("/"+p), "/"); override || strings.HasSuffix(p, "/v2") {
		return p
	}
	return p + "/v2"
}

// wire reads how connections are made. Paths are relative to dir.
func (t *hostTable) wire(dir string, w *Wire) (err error) {
	abs := func(name string) string {
		if name == "" || filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	w.SkipVerify = t.SkipVerify
	authorities, err := texts("ca", t.CA)
	if err != nil {
		return err
	}
	for _, name := range authorities {
		w.Authorities = append(w.Authorities, abs(name))
	}
	if w.ClientCerts, err = t.clientPairs(); err != nil {
		return err
	}
	for i, pair := range w.ClientCerts {
		w.ClientCerts[i] = [2]string{abs(pair[0]), abs(pair[1])}
	}
	if t.DialTimeout != "" {
		if w.DialTimeout, err = time.ParseDuration(t.DialTimeout); err != nil || w.DialTimeout <= 0 {
			return fmt.Errorf("dial_timeout: %q is not a length of time such as 5s", t.DialTimeout)
		}
	}
	w.Proxy = t.Proxy.URL
	return nil
}

// A proxyURL is the URL of a proxy in a file; nil if there is none.
type proxyURL struct{ *url.URL }

// UnmarshalText implements encoding.TextUnmarshaler. Its error quotes nothing:
// there can be a password in it.
func (p *proxyURL) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	u, err := url.Parse(string(text))
	if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		return errors.New("it is not the URL of a proxy")
	}
	p.URL = u
	return nil
}

// clientPairs reads client: files with certificate and key, or pairs of
// files, of which the second may be "" if the first has both.
func (t *hostTable) clientPairs() ([][2]string, error) {
	list, ok := t.Client.([]any)
	if !ok {
		names, err := texts("client", t.Client)
		if err != nil || len(names) == 0 {
			return nil, err
		}
		return [][2]string{{names[0], ""}}, nil
	}
	var pairs [][2]string
	for _, item := range list {
		names, err := texts("client", item)
		if err != nil {
			return nil, err
		}
		switch len(names) {
		case 1:
			pairs = append(pairs, [2]string{names[0], ""})
		case 2:
			pairs = append(pairs, [2]string(names))
		default:
			return nil, fmt.Errorf("client: %d files where certificate and key are expected", len(names))
		}
	}
	return pairs, nil
}

func (t *hostTable) header() (http.Header, error) {
	header := make(http.Header)
	for name, value := range t.Header {
		values, err := texts("header "+name, value)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			header.Add(name, v)
		}
	}
	return header, nil
}

// texts reads a value that is a string or several.
func texts(name string, value any) ([]string, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var all []string
		for _, item := range v {
			text, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("%s: a %T where a string is expected", name, item)
			}
			all = append(all, text)
		}
		return all, nil
	}
	return nil, fmt.Errorf("%s: a %T where a string is expected", name, value)
}
