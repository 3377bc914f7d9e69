package hosts

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Credential is a user and password, or a token. The zero Credential stands
// for no one in particular.
type Credential struct {
	User, Password string
	// IdentityToken is a refresh token, got at a login elsewhere.
	IdentityToken string
	// RegistryToken is sent to the registry as it is.
	RegistryToken string
}

// A CredentialFunc looks up the credential for a repository of a registry,
// "docker.io" and "library/fedora". If there is none it returns the zero
// Credential and no error. It is called each time a token is needed, perhaps
// concurrently.
type CredentialFunc func(ctx context.Context, registry, repository string) (Credential, error)

// AuthFiles looks up credentials where podman and docker keep them: in
// auth.json and config.json files, and with the helper programs named there.
// The files are read anew at each look-up. It is safe for concurrent use.
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
	// Logf is told of entries that cannot be used. Default: no one.
	Logf func(format string, args ...any)
}

// filesHelper stands for the files among AuthFiles.Helpers.
const filesHelper = "containers-auth.json"

// Credential returns the credential of the first of Helpers that has one, and
// among the files the first match, in their order. Within a file, credHelpers
// come before credsStore and that before auths, and a key that names more of
// host/namespace/repository before one that names less. docker.io is known by
// its other names too. An entry that cannot be read spoils only itself; a
// helper that is not installed is passed over; one that fails is an error,
// unless it is one of Helpers and another has something.
func (a *AuthFiles) Credential(ctx context.Context, registry, repository string) (Credential, error) {
	keys := authKeys(registry, repository)
	helpers := a.Helpers
	if !slices.Contains(helpers, filesHelper) {
		helpers = append(slices.Clip(helpers), filesHelper)
	}
	var failed error
	for _, name := range helpers {
		var c Credential
		var err error
		if name == filesHelper {
			c, err = a.fromFiles(ctx, keys)
		} else {
			c, err = a.helper(ctx, name, keys)
		}
		if err == nil && c != (Credential{}) {
			return c, nil
		}
		if failed == nil {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Credential{}, failed
}

func (a *AuthFiles) fromFiles(ctx context.Context, keys []string) (Credential, error) {
	for _, source := range a.sources() {
		config, err := source.read()
		if err != nil {
			return Credential{}, err
		}
		c, err := a.lookUp(ctx, config, keys)
		if err != nil {
			return Credential{}, fmt.Errorf("%s: %w", source.name, err)
		}
		if c != (Credential{}) {
			return c, nil
		}
	}
	return Credential{}, nil
}

// An authSource is a file, or the content of one.
type authSource struct {
	name     string
	content  string // if not a file
	required bool
	old      bool // of the form of .dockercfg, which has nothing but auths
}

func (a *AuthFiles) sources() []authSource {
	for _, path := range []string{a.Path, os.Getenv("REGISTRY_AUTH_FILE")} {
		if path != "" {
			return []authSource{{name: path, required: true}}
		}
	}
	runtimeDir := os.Getenv("XDG_RUNTIME_DIR")
	if runtimeDir == "" {
		// So podman does for users without a session.
		runtimeDir = fmt.Sprintf("/run/containers/%d", os.Getuid())
	} else {
		runtimeDir = filepath.Join(runtimeDir, "containers")
	}
	sources := []authSource{{name: filepath.Join(runtimeDir, "auth.json")}}
	// Without a home directory there are fewer places to look.
	home, _ := os.UserHomeDir()
	inHome := func(env, dir, name string) {
		if value := os.Getenv(env); value != "" {
			sources = append(sources, authSource{name: filepath.Join(value, name)})
		} else if home != "" {
			sources = append(sources, authSource{name: filepath.Join(home, dir, name)})
		}
	}
	inHome("XDG_CONFIG_HOME", ".config", "containers/auth.json")
	if content := os.Getenv("DOCKER_AUTH_CONFIG"); content != "" {
		sources = append(sources, authSource{name: "DOCKER_AUTH_CONFIG", content: content})
	}
	inHome("DOCKER_CONFIG", ".docker", "config.json")
	if home != "" {
		sources = append(sources, authSource{name: filepath.Join(home, ".dockercfg"), old: true})
	}
	return sources
}

// authConfig has the parts of a config.json or auth.json that are used. Values are
// decoded one by one, so that none spoils the others.
type authConfig struct {
	Auths       authEntries `json:"auths"`
	CredsStore  authText    `json:"credsStore"`
	CredHelpers authEntries `json:"credHelpers"`
}

type authEntries map[string]json.RawMessage

// UnmarshalJSON takes anything else than an object for an empty one.
func (e *authEntries) UnmarshalJSON(data []byte) error {
	var entries map[string]json.RawMessage
	if json.Unmarshal(data, &entries) == nil {
		*e = entries
	}
	return nil
}

type authText string

// UnmarshalJSON takes anything else than a string for an empty one.
func (t *authText) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*t = authText(text)
	}
	return nil
}

func (s authSource) read() (*authConfig, error) {
	data := []byte(s.content)
	if s.content == "" {
		var err error
		data, err = readConfig(s.name)
		if !s.required && (isAbsent(err) || errors.Is(err, fs.ErrPermission)) {
			return new(authConfig), nil
		}
		if err != nil {
			return nil, err
		}
	}
	config := new(authConfig)
	// podman writes an empty file where there are no credentials.
	if len(bytes.TrimSpace(data)) == 0 {
		return config, nil
	}
	var into any = config
	if s.old {
		into = (*map[string]json.RawMessage)(&config.Auths)
	}
	// The decoder's error can quote its input, which may be a password.
	if err := json.Unmarshal(data, into); err != nil {
		return nil, fmt.Errorf("%s: not a JSON file of credentials", s.name)
	}
	return config, nil
}

func readConfig(path string) ([]byte, error) {
	const most = 16 << 20
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err == nil && len(data) == most {
		err = fmt.Errorf("%s: %d bytes or more", path, most)
	}
	return data, err
}

func (a *AuthFiles) lookUp(ctx context.Context, config *authConfig, keys []string) (Credential, error) {
	if helper := helperFor(config.CredHelpers, keys); helper != "" {
		if c, err := a.helper(ctx, helper, keys); err != nil || c != (Credential{}) {
			return c, err
		}
	}
	if config.CredsStore != "" {
		if c, err := a.helper(ctx, string(config.CredsStore), keys); err != nil || c != (Credential{}) {
			return c, err
		}
	}
	// The longest key that has a usable entry: docker leaves empty entries
	// behind for credentials that are in a store.
	for _, name := range matches(config.Auths, keys) {
		c, err := decodeAuth(config.Auths[name])
		if err != nil {
			a.log("credentials for %s: %v", name, err)
		}
		if c != (Credential{}) {
			return c, nil
		}
	}
	return Credential{}, nil
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

func (a *AuthFiles) log(format string, args ...any) {
	if a.Logf != nil {
		a.Logf(format, args...)
	}
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

// decodeAuth decodes an entry of auths. Its errors quote nothing of it.
func decodeAuth(raw json.RawMessage) (Credential, error) {
	var entry struct {
		Auth          string `json:"auth"`
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	}
	if json.Unmarshal(raw, &entry) != nil {
		return Credential{}, errors.New("the entry is not of the form expected")
	}
	c := Credential{User: entry.Username, Password: entry.Password, IdentityToken: entry.IdentityToken, RegistryToken: entry.RegistryToken}
	if entry.Auth == "" {
		return c, nil
	}
	text, err := base64.StdEncoding.DecodeString(entry.Auth)
	if err != nil {
		text, err = base64.RawStdEncoding.DecodeString(entry.Auth)
	}
	user, password, ok := strings.Cut(string(text), ":")
	if err != nil || !ok {
		return c, errors.New("auth is not the base64 form of user:password")
	}
	// docker once padded passwords with zero bytes.
	c.User, c.Password = user, strings.TrimRight(password, "\x00")
	return c, nil
}
