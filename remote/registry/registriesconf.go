package registry

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/imgfs/imgfs/remote"
)

// A registriesConf is what is of use in a file in the form of
// containers-registries.conf(5).
type registriesConf struct {
	Search   []string          `toml:"unqualified-search-registries"`
	Helpers  []string          `toml:"credential-helpers"`
	Registry []registryTable   `toml:"registry"`
	Aliases  map[string]string `toml:"aliases"`
	// Version 1 of the form.
	Registries map[string]struct {
		Registries []string `toml:"registries"`
	} `toml:"registries"`
}

type registryTable struct {
	Prefix       string        `toml:"prefix"`
	Location     string        `toml:"location"`
	Insecure     bool          `toml:"insecure"`
	Proxy        proxyURL      `toml:"proxy"`
	Blocked      bool          `toml:"blocked"`
	ByDigestOnly bool          `toml:"mirror-by-digest-only"`
	Mirrors      []mirrorTable `toml:"mirror"`
}

type mirrorTable struct {
	Location string   `toml:"location"`
	Insecure bool     `toml:"insecure"`
	Proxy    proxyURL `toml:"proxy"`
	Pull     string   `toml:"pull-from-mirror"`
}

// The values of pull-from-mirror besides "", which is all.
const (
	pullAll        = "all"
	pullDigestOnly = "digest-only"
	pullTagOnly    = "tag-only"
)

// A registryEntry is a [[registry]].
type registryEntry struct {
	registryTable
	prefix string
	file   string
}

// addRegistriesConf adds what a file says, in place of what those before it
// said of the same.
func (c *Configuration) addRegistriesConf(path string) error {
	data, err := readOptional(path)
	if data == nil {
		return err
	}
	var conf registriesConf
	known, err := toml.Decode(string(data), &conf)
	if err != nil {
		return configFault(path, err)
	}
	conf.convert(&known)
	if conf.Search != nil || known.IsDefined("unqualified-search-registries") {
		c.search, c.searchFile = conf.Search, path
	}
	if len(conf.Helpers) > 0 {
		c.helpers = conf.Helpers
	}
	for name, target := range conf.Aliases {
		if delete(c.aliases, name); target != "" {
			c.aliases[name] = alias{target, path}
		}
	}
	for _, table := range conf.Registry {
		entry := &registryEntry{registryTable: table, prefix: strings.TrimRight(table.Prefix, "/"), file: path}
		if err := entry.check(); err != nil {
			return configFault(path, err)
		}
		c.registries[entry.prefix] = entry
	}
	return nil
}

// convert turns version 1 of the form, which podman still reads, into version
// 2.
func (conf *registriesConf) convert(known *toml.MetaData) {
	if !known.IsDefined("registries") {
		return
	}
	conf.Search = append(conf.Search, conf.Registries["search"].Registries...)
	for _, name := range conf.Registries["insecure"].Registries {
		conf.Registry = append(conf.Registry, registryTable{Location: name, Insecure: true})
	}
	for _, name := range conf.Registries["block"].Registries {
		conf.Registry = append(conf.Registry, registryTable{Location: name, Blocked: true})
	}
}

// check completes an entry, and refuses what podman refuses.
func (e *registryEntry) check() error {
	e.Location = strings.TrimRight(e.Location, "/")
	if e.prefix == "" {
		e.prefix = e.Location
	}
	wild := strings.HasPrefix(e.prefix, "*.")
	switch {
	case e.prefix == "":
		return errors.New("a [[registry]] has neither prefix nor location")
	case strings.Contains(e.prefix, "*") && (!wild || strings.ContainsAny(e.prefix[1:], "*/:@")):
		return fmt.Errorf("the prefix %q: * stands only at the beginning, as in *.example.com", e.prefix)
	case e.Location == "" && !wild:
		return fmt.Errorf("the [[registry]] with the prefix %q has no location", e.prefix)
	}
	if err := checkLocation(e.prefix); err != nil {
		return err
	}
	if err := checkLocation(e.Location); err != nil {
		return err
	}
	for i := range e.Mirrors {
		m := &e.Mirrors[i]
		if m.Location = strings.TrimRight(m.Location, "/"); m.Location == "" {
			return fmt.Errorf("a mirror of %s has no location", e.prefix)
		}
		if err := checkLocation(m.Location); err != nil {
			return err
		}
		switch m.Pull {
		case "":
		case pullAll, pullDigestOnly, pullTagOnly:
			if e.ByDigestOnly {
				return fmt.Errorf("pull-from-mirror of %s: the registry has mirror-by-digest-only already", m.Location)
			}
		default:
			return fmt.Errorf("pull-from-mirror of %s is %q, which is none of all, digest-only and tag-only", m.Location, m.Pull)
		}
	}
	return nil
}

func checkLocation(location string) error {
	if strings.Contains(location, "://") {
		return fmt.Errorf("%s is a URL; leave out what is before the host", location)
	}
	return nil
}

// entryFor returns the [[registry]] with the longest prefix that fits, and
// what follows the prefix in the reference.
func (c *Configuration) entryFor(ref remote.Reference) (*registryEntry, string) {
	var best *registryEntry
	longest, text := 0, ref.String()
	for prefix, e := range c.registries {
		n := matchPrefix(ref, text, prefix)
		// Of a name and a pattern that match the same the name says more, and
		// of two patterns the longer one.
		if n > longest || n > 0 && n == longest && moreExact(prefix, best.prefix) {
			best, longest = e, n
		}
	}
	return best, text[longest:]
}

func moreExact(a, b string) bool {
	wildA, wildB := strings.HasPrefix(a, "*."), strings.HasPrefix(b, "*.")
	return !wildA && wildB || wildA == wildB && len(a) > len(b)
}

// matchPrefix returns how much of a reference, written as text, a prefix
// stands for; 0 if it does not fit.
func matchPrefix(ref remote.Reference, text, prefix string) int {
	if domain, ok := strings.CutPrefix(prefix, "*"); ok {
		// hostname is in lower case, and so is what people write.
		if strings.HasSuffix(hostname(ref.Registry), strings.ToLower(domain)) {
			return len(ref.Registry)
		}
		return 0
	}
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return 0
	}
	switch {
	case rest == "", rest[0] == '/', rest[0] == '@', rest[0] == ':' && strings.Contains(prefix, "/"):
		return len(prefix)
	}
	return 0
}

// sites returns the mirrors that may be asked for a reference of this kind,
// and the registry's own location. rest is what follows the prefix.
func (e *registryEntry) sites(ref remote.Reference, rest string) ([]*site, error) {
	var sites []*site
	for _, m := range e.Mirrors {
		pull := m.Pull
		if e.ByDigestOnly {
			pull = pullDigestOnly
		}
		if pull == pullDigestOnly && ref.Digest == "" || pull == pullTagOnly && ref.Digest != "" {
			continue
		}
		s, err := e.site(ref, m.Location+rest, m.Insecure, m.Proxy)
		if err != nil {
			return nil, err
		}
		sites = append(sites, s)
	}
	text := ref.String()
	if e.Location != "" {
		text = e.Location + rest
	}
	last, err := e.site(ref, text, e.Insecure, e.Proxy)
	if err != nil {
		return nil, err
	}
	return append(sites, last), nil
}

func (e *registryEntry) site(original remote.Reference, text string, insecure bool, proxy proxyURL) (*site, error) {
	ref, err := remote.ParseReference(text)
	if err != nil || isShort(text) {
		return nil, configFault(e.file, fmt.Errorf("%s leads to %q, which is not the name of an image with its registry", e.prefix, text))
	}
	s := canonicalSite(ref)
	s.original = original.Name()
	s.insecure, s.wire.skipVerify, s.wire.proxy = insecure, insecure, proxy.URL
	return s, nil
}
