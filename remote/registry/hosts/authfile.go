package hosts

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/remote/printable"
)

// A Credential is a user and password, or a token. One that is Empty stands for
// no one in particular.
type Credential struct {
	User, Password string
	// IdentityToken is a refresh token, got at a login elsewhere.
	IdentityToken string
	// RegistryToken is sent to the registry as it is.
	RegistryToken string
	// Origin says for messages where the credential was found: the path of a
	// file, or a helper. "": that is not known.
	Origin string
}

// Empty reports whether there is nothing in c that could be sent.
func (c Credential) Empty() bool {
	c.Origin = ""
	return c == Credential{}
}

// A CredentialFunc looks up the credential for a repository of a registry,
// "docker.io" and "library/fedora". If there is none it returns the zero
// Credential and no error. An error says why a place to look in counts as
// missing, and comes beside the credential that another one has; without one the
// registry is asked as by a stranger. It is called each time a token is needed,
// perhaps concurrently.
type CredentialFunc func(ctx context.Context, registry, repository string) (Credential, error)

// AuthFiles looks up credentials where podman and docker keep them: in
// auth.json and config.json files, and with the helper programs named there.
// The files are read anew at each look-up, but for a pipe that was named, which
// is read once. It is safe for concurrent use.
type AuthFiles struct {
	// Path is the only file to look in. Default: $REGISTRY_AUTH_FILE alone,
	// and if that is not set, in this order: podman's
	// $XDG_RUNTIME_DIR/containers/auth.json and
	// $XDG_CONFIG_HOME/containers/auth.json, the content of
	// $DOCKER_AUTH_CONFIG, docker's config.json in $DOCKER_CONFIG or
	// ~/.docker, and ~/.dockercfg, which is one from before 2015.
	Path string
	// Helpers are asked in their order, as credential-helpers of
	// containers-registries.conf(5): NAME is the program
	// docker-credential-NAME, and "containers-auth.json" stands for the files.
	// Where that is missing the files come last. Default: the files alone.
	Helpers []string
	// HelperTimeout is how long a helper program may run. Default: 10 s.
	HelperTimeout time.Duration

	pipes pipes
}

// filesHelper stands for the files among AuthFiles.Helpers.
const filesHelper = "containers-auth.json"

// Credential returns the credential of the first of Helpers that has one, and
// among the files the first match, in their order. Within a file, credHelpers
// come before credsStore and that before auths, and a key that names more of
// host/namespace/repository before one that names less. docker.io is known by
// its other names too.
//
// A file, an entry or a helper that is of no use counts as missing: then the next
// one is asked, and the error, a *BrokenError, says what is wrong with it, also
// beside a credential that was found.
func (a *AuthFiles) Credential(ctx context.Context, registry, repository string) (Credential, error) {
	helpers := a.Helpers
	if !slices.Contains(helpers, filesHelper) {
		helpers = append(slices.Clip(helpers), filesHelper)
	}
	l := &lookUp{files: a, keys: authKeys(registry, repository), failed: make(map[string]bool)}
	var c Credential
	for _, name := range helpers {
		if name == filesHelper {
			c = l.inFiles(ctx)
		} else {
			c = l.inHelper(ctx, name, "")
		}
		if !c.Empty() || ctx.Err() != nil {
			break
		}
	}
	return c, l.err()
}

// A lookUp is one search for a credential. It belongs to one goroutine.
type lookUp struct {
	files  *AuthFiles
	keys   []string        // authKeys
	failed map[string]bool // helpers, which are not asked a second time
	broken BrokenError
}

// complain notes what is wrong with a place. quiet says that it is nothing out of
// the ordinary.
func (l *lookUp) complain(quiet bool, err error) {
	l.broken.Loud = l.broken.Loud || !quiet
	l.broken.Reasons = append(l.broken.Reasons, err)
}

func (l *lookUp) err() error {
	if len(l.broken.Reasons) == 0 {
		return nil
	}
	return &l.broken
}

// inFiles looks into the files.
func (l *lookUp) inFiles(ctx context.Context) Credential {
	for _, source := range l.files.sources() {
		config, errs := source.read()
		for _, err := range errs {
			l.complain(false, err)
		}
		if c := l.inConfig(ctx, source.name, config); !c.Empty() || ctx.Err() != nil {
			return c
		}
	}
	return Credential{}
}

// inConfig looks into the content of one file.
func (l *lookUp) inConfig(ctx context.Context, file string, config *authConfig) Credential {
	for _, helper := range []string{helperFor(config.helpers, l.keys), config.store} {
		if helper == "" {
			continue
		}
		if c := l.inHelper(ctx, helper, file); !c.Empty() || ctx.Err() != nil {
			return c
		}
	}
	// The longest key that has a usable entry: docker leaves empty entries
	// behind for credentials that are in a store.
	for _, name := range matches(config.auths, l.keys) {
		c, err := decodeAuth(config.auths[name])
		if err != nil {
			l.complain(false, fmt.Errorf("%s: the entry for %s: %w", printable.Text(file), printable.Line(name), err))
		}
		if !c.Empty() {
			c.Origin = printable.Text(file)
			return c
		}
	}
	return Credential{}
}

// helperFor returns the helper that credHelpers have for the first of keys
// that has one.
func helperFor(helpers authEntries, keys []string) string {
	for _, name := range matches(helpers, keys) {
		var helper string
		if json.Unmarshal(helpers[name], &helper) == nil && helper != "" {
			return helper
		}
	}
	return ""
}

const dockerHub = "docker.io"

// authKeys returns the keys that fit a repository, the most exact first:
// "quay.io/a/b", "quay.io/a", "quay.io".
func authKeys(registry, repository string) []string {
	key := canonicalKey(registry)
	keys := []string{key}
	for part := range strings.SplitSeq(repository, "/") {
		key += "/" + part
		keys = append(keys, key)
	}
	slices.Reverse(keys)
	return keys
}

// matches returns the names of the entries for keys, in the order of these. Of
// several ways to write a key the exact one is first.
func matches(entries authEntries, keys []string) (names []string) {
	for _, key := range keys {
		if _, ok := entries[key]; ok {
			names = append(names, key)
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			if name != key && canonicalKey(name) == key {
				names = append(names, name)
			}
		}
	}
	return names
}

// canonicalKey reduces the ways that a registry is written in files, such as
// https://index.docker.io/v1/, to one.
func canonicalKey(key string) string {
	host, path, _ := strings.Cut(key, "/")
	if strings.HasSuffix(host, ":") && strings.HasPrefix(path, "/") { // a URL; docker looks at its host alone
		host, _, _ = strings.Cut(path[1:], "/")
		path = ""
	}
	switch path = strings.Trim(path, "/"); path {
	case "v1", "v2":
		path = ""
	}
	switch host = strings.ToLower(host); host {
	case "index.docker.io", "registry-1.docker.io":
		host = dockerHub
	}
	if path == "" {
		return host
	}
	return host + "/" + path
}
