package hosts

import (
	"fmt"
	"strings"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// ConfigFiles are the files that say where else than at its registry an image
// is to be had, and which registry names without one mean. nil and the
// zero value stand for the files of podman, containerd and docker on this
// machine. docs/registries.md lists the settings that count.
type ConfigFiles struct {
	// Registries are files in the form of containers-registries.conf(5), of
	// which a later one overrides an earlier one. Those that do not exist are
	// passed over. Default: the files that podman reads.
	Registries []string
	// HostDirs are trees in the form of containerd's certs.d: a directory a
	// registry, with a hosts.toml. The first that has the registry's is used.
	// Default: ~/.config/containerd/certs.d and /etc/containerd/certs.d.
	HostDirs []string
	// DaemonJSON are configuration files of docker's daemon, of which the
	// first that is there is used. Default: /etc/docker/daemon.json, and before
	// it that of a user's own daemon.
	DaemonJSON []string
	// Logf gets a line for everything that is passed over. Default: none.
	Logf func(format string, args ...any)
}

// A Configuration holds the content of ConfigFiles. It is safe for concurrent
// use. The zero Configuration is that of a machine without such files.
type Configuration struct {
	registries map[string]*registryEntry // by prefix
	aliases    map[string]string         // by short name
	search     []string                  // registries that a short name may be in
	searchFile string
	helpers    []string // AuthFiles.Helpers
	hostDirs   []string
	docker     daemonJSON
	logf       func(format string, args ...any)
}

// Load reads the files. A registries.conf that is malformed is an error: an image
// that it blocks must not be pulled because of a typing mistake elsewhere in it. A
// hosts.toml is read when its registry is asked for the first time, and
// concerns no other. The error is ErrConfiguration, wrapped.
func (f *ConfigFiles) Load() (*Configuration, error) {
	var files ConfigFiles
	if f != nil {
		files = *f
	}
	if files.Logf == nil {
		files.Logf = func(string, ...any) {}
	}
	here := thisMachine()
	if files.Registries == nil {
		var err error
		if files.Registries, err = here.registriesConf(); err != nil {
			return nil, err
		}
	}
	if files.HostDirs == nil {
		files.HostDirs = here.hostDirs()
	}
	if files.DaemonJSON == nil {
		files.DaemonJSON = here.daemonJSON()
	}
	c := &Configuration{
		registries: make(map[string]*registryEntry),
		aliases:    make(map[string]string),
		hostDirs:   files.HostDirs,
		logf:       files.Logf,
	}
	for _, path := range files.Registries {
		if err := c.addRegistriesConf(path); err != nil {
			return nil, err
		}
	}
	if file := firstFile(files.DaemonJSON); file != "" {
		c.docker = readDaemonJSON(file, files.Logf)
	}
	return c, nil
}

// readOptional reads a file that need not be there: then it returns nil.
func readOptional(path string) ([]byte, error) {
	data, err := readConfig(path)
	if isAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, configFault(path, err)
	}
	return data, nil
}

// Credentials returns how credentials are looked up: in authFile alone, or, if
// it is "", where AuthFiles look by default; and with the helpers that
// registries.conf names.
func (c *Configuration) Credentials(authFile string) CredentialFunc {
	return (&AuthFiles{Path: authFile, Helpers: c.helpers}).Credential
}

// ShortName returns the full name for a name that a user gave: the target of its
// alias, or, if it has no registry, the name in the only one of
// unqualified-search-registries. It never asks, neither the user nor a
// registry: with several candidates the error, which is remote.ErrReference,
// names them all. Without aliases and search registries, and if it has a
// registry, the name is returned as it is, which remote.ParseReference takes
// to be in docker.io, as docker does. Whether the name is well formed is not
// looked at.
//
// A name in registry-1.docker.io, which remote.ParseReference takes for one in
// docker.io, is refused here with ErrBlocked if it is blocked as it is written.
func (c *Configuration) ShortName(name string) (string, error) {
	full, err := c.fullName(name)
	if err == nil && strings.HasPrefix(full, hubHost+"/") {
		err = c.blocked(full)
	}
	if err != nil {
		return "", err
	}
	return full, nil
}

func (c *Configuration) fullName(name string) (string, error) {
	repository, rest := cutVersion(name)
	if a, ok := c.aliases[repository]; ok {
		return a + rest, nil
	}
	if !isShort(name) {
		return name, nil
	}
	switch len(c.search) {
	case 0:
		return name, nil
	case 1:
		return c.search[0] + "/" + name, nil
	}
	var candidates []string
	for _, registry := range c.search {
		candidates = append(candidates, printable.Word(registry+"/"+name))
	}
	return "", fmt.Errorf("%w: %q names no registry, and %s has several to search; write one of %s",
		remote.ErrReference, scrub.Text(name), c.searchFile, strings.Join(candidates, ", "))
}

// isShort tells whether a name has no registry before its first slash, by
// docker's rule.
func isShort(name string) bool {
	first, _, found := strings.Cut(name, "/")
	return !found || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first
}

// cutVersion splits a name before its tag or digest.
func cutVersion(name string) (repository, rest string) {
	end := len(name)
	if i := strings.IndexByte(name, '@'); i >= 0 {
		end = i
	}
	if i := strings.LastIndexByte(name[:end], ':'); i > strings.LastIndexByte(name[:end], '/') {
		end = i
	}
	return name[:end], name[end:]
}
