package hosts

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/distribution/reference"
)

// A registriesConf has the parts of a containers-registries.conf(5) that are
// used.
type registriesConf struct {
	Search   []string          `toml:"unqualified-search-registries"`
	Helpers  []string          `toml:"credential-helpers"`
	Mode     string            `toml:"short-name-mode"` // checked, and otherwise of no use
	Registry []registryTable   `toml:"registry"`
	Aliases  map[string]string `toml:"aliases"`
	V1       registriesV1      `toml:"registries"`
}

// registriesV1 is version 1 of the form.
type registriesV1 struct {
	Search   registriesList `toml:"search"`
	Insecure registriesList `toml:"insecure"`
	Block    registriesList `toml:"block"`
}

type registriesList struct {
	Registries []string `toml:"registries"`
}

type registryTable struct {
	Prefix       string        `toml:"prefix"`
	Location     string        `toml:"location"`
	Insecure     bool          `toml:"insecure"`
	Proxy        proxyURL      `toml:"proxy"`
	Blocked      bool          `toml:"blocked"`
	ByDigestOnly bool          `toml:"mirror-by-digest-only"`
	Pull         string        `toml:"pull-from-mirror"` // refused: it is for mirrors
	Mirrors      []mirrorTable `toml:"mirror"`
	Own          ownTable      `toml:"imgfs"`
}

type mirrorTable struct {
	Location string   `toml:"location"`
	Insecure bool     `toml:"insecure"`
	Proxy    proxyURL `toml:"proxy"`
	Pull     string   `toml:"pull-from-mirror"`
	Own      ownTable `toml:"imgfs"` // refused: it is for registries
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
	prefix     string
	file       string
	indexRepos []string
}

// addRegistriesConf adds a file, which overrides those before it.
func (c *Configuration) addRegistriesConf(path string) error {
	data, err := readOptional(path)
	if data == nil {
		return err
	}
	var conf registriesConf
	if _, err := toml.Decode(string(data), &conf); err != nil {
		return configFault(path, err)
	}
	if err := conf.complete(); err != nil {
		return configFault(path, err)
	}
	entries, err := conf.entries(path)
	if err != nil {
		return configFault(path, err)
	}
	// A list that is there and empty overrides too.
	if conf.Search != nil {
		c.search, c.searchFile = conf.Search, path
	}
	if conf.Helpers != nil {
		c.helpers = conf.Helpers
	}
	for name, target := range conf.Aliases {
		if delete(c.aliases, name); target != "" {
			c.aliases[name] = target
		}
	}
	for _, e := range entries {
		c.registries[e.prefix] = e
	}
	return nil
}

// complete turns version 1 of the form into version 2, and refuses what podman
// refuses of all but the registries.
func (conf *registriesConf) complete() error {
	if err := conf.convert(); err != nil {
		return err
	}
	switch conf.Mode {
	case "", "disabled", "enforcing", "permissive":
	default:
		return fmt.Errorf("short-name-mode is %q, which is none of disabled, enforcing and permissive", conf.Mode)
	}
	host := regexp.MustCompile("^(" + reference.DomainRegexp.String() + ")$")
	for i, name := range conf.Search {
		name = strings.TrimRight(name, "/")
		if !host.MatchString(name) {
			return fmt.Errorf("unqualified-search-registries: %q is not the name of a registry", name)
		}
		conf.Search[i] = name
	}
	for name, target := range conf.Aliases {
		if err := checkAlias(name, target); err != nil {
			return err
		}
	}
	return nil
}

// convert turns version 1 of the form, which podman 5 still reads, into version
// 2. The two are not to be mixed: which of them holds is not said.
func (conf *registriesConf) convert() error {
	v1 := conf.V1
	if v1.Search.Registries == nil && v1.Insecure.Registries == nil && v1.Block.Registries == nil {
		return nil
	}
	if conf.Search != nil || conf.Helpers != nil || conf.Mode != "" || conf.Registry != nil || conf.Aliases != nil {
		return errors.New("[registries] is of version 1 of the form, and the rest of version 2")
	}
	conf.Search = v1.Search.Registries
	at := map[string]int{}
	table := func(location string) *registryTable {
		location = strings.TrimRight(location, "/")
		if _, ok := at[location]; !ok {
			at[location] = len(conf.Registry)
			conf.Registry = append(conf.Registry, registryTable{Location: location})
		}
		return &conf.Registry[at[location]]
	}
	for _, name := range v1.Insecure.Registries {
		table(name).Insecure = true
	}
	for _, name := range v1.Block.Registries {
		table(name).Blocked = true
	}
	return nil
}

// checkAlias refuses an alias whose name is no short name, and one whose target
// has no registry or has a tag or digest. An empty target takes the alias back.
func checkAlias(name, target string) error {
	short, err := reference.Parse(name)
	if err != nil || !isRepository(short) || isHost(domainOf(short)) {
		return fmt.Errorf("the alias %q is not the short name of a repository", name)
	}
	if target == "" {
		return nil
	}
	full, err := reference.Parse(target)
	if err == nil && isRepository(full) && isHost(domainOf(full)) {
		_, err = reference.ParseNormalizedNamed(target)
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("the alias %q has the target %q, which is not the name of a repository with its registry", name, target)
}

// isRepository reports whether a reference is a name without tag and digest.
func isRepository(ref reference.Reference) bool {
	named, ok := ref.(reference.Named)
	return ok && reference.IsNameOnly(named)
}

func domainOf(ref reference.Reference) string { return reference.Domain(ref.(reference.Named)) }

// isHost is podman's rule for the part before the first slash.
func isHost(name string) bool { return strings.ContainsAny(name, ".:") || name == "localhost" }

// entries returns the [[registry]] tables. Of several with one prefix the first
// counts, as for podman, but if any of them is blocked so is it.
func (conf *registriesConf) entries(path string) ([]*registryEntry, error) {
	var entries []*registryEntry
	first := map[string]*registryEntry{}
	places := map[string]registryTable{} // as they are written
	for _, table := range conf.Registry {
		e := &registryEntry{registryTable: table, prefix: strings.TrimRight(table.Prefix, "/"), file: path}
		if err := e.check(); err != nil {
			return nil, err
		}
		place := cmp.Or(e.Location, e.prefix)
		if other, there := places[place]; there && (other.Insecure != e.Insecure || other.Blocked != e.Blocked) {
			return nil, fmt.Errorf("there are several [[registry]] for %s, which disagree on insecure or blocked", place)
		}
		places[place] = e.registryTable
		if other := first[e.prefix]; other != nil {
			other.Blocked = other.Blocked || e.Blocked
			continue
		}
		first[e.prefix] = e
		entries = append(entries, e)
	}
	return entries, nil
}

// check completes an entry, and refuses it if podman does or if it could not
// mean anything.
func (e *registryEntry) check() error {
	e.Location = strings.TrimRight(e.Location, "/")
	if e.Prefix == "" {
		e.prefix = e.Location
	}
	wild := strings.HasPrefix(e.prefix, "*.")
	switch {
	case e.prefix == "":
		return errors.New("a [[registry]] has neither prefix nor location")
	case strings.Contains(e.prefix, "*") && (!wild || e.prefix == "*." || strings.ContainsAny(e.prefix[1:], "*/:@")):
		return fmt.Errorf("the prefix %q: * stands only at the beginning, as in *.example.com", e.prefix)
	case e.Location == "" && !wild:
		return fmt.Errorf("the [[registry]] with the prefix %q has no location", e.prefix)
	case e.Pull != "":
		return fmt.Errorf("pull-from-mirror of %s: it is for its mirrors", e.prefix)
	}
	if err := checkLocation(e.prefix); err != nil {
		return err
	}
	if err := checkLocation(e.Location); err != nil {
		return err
	}
	for i := range e.Mirrors {
		if err := e.checkMirror(&e.Mirrors[i]); err != nil {
			return err
		}
	}
	var err error
	if e.indexRepos, err = e.Own.indexRepos(); err != nil {
		return fmt.Errorf("the [[registry]] of %s: %w", e.prefix, err)
	}
	return nil
}

func (e *registryEntry) checkMirror(m *mirrorTable) error {
	if m.Location = strings.TrimRight(m.Location, "/"); m.Location == "" {
		return fmt.Errorf("a mirror of %s has no location", e.prefix)
	}
	if err := checkLocation(m.Location); err != nil {
		return err
	}
	if m.Own.IndexRepo != nil {
		return fmt.Errorf("%s: %w", m.Location, errMirrorOwn)
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
	return nil
}

func checkLocation(location string) error {
	if strings.Contains(location, "://") {
		return fmt.Errorf("%s is a URL; leave out what is before the host", location)
	}
	return nil
}
