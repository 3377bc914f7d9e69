package dockerdaemon

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
)

// DefaultHost is the address of docker's daemon, if nothing says another.
const DefaultHost = "unix:///var/run/docker.sock"

// defaultContext is docker's name of the context that has DefaultHost.
const defaultContext = "default"

// maxConfig bounds the files of docker that are read.
const maxConfig = 1 << 20

// A host is the address of a daemon, and what says so.
type host struct{ address, by string }

// findHost returns the daemon that is meant, as docker's client finds it: the one that
// was given, DOCKER_HOST, that of the context that DOCKER_CONTEXT or docker's config.json
// names, or the default.
func findHost(given string) (host, error) {
	if given != "" {
		return host{given, "the daemon's address"}, nil
	}
	if env := os.Getenv("DOCKER_HOST"); env != "" {
		return host{env, "DOCKER_HOST"}, nil
	}
	dir := configDir()
	if dir == "" {
		return host{DefaultHost, "the default"}, nil
	}
	name, by := os.Getenv("DOCKER_CONTEXT"), "DOCKER_CONTEXT"
	if name == "" {
		var config struct {
			CurrentContext string `json:"currentContext"`
		}
		by = filepath.Join(dir, "config.json")
		if err := readConfig(by, &config); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return host{}, err
		}
		name = config.CurrentContext
	}
	if name == "" || name == defaultContext {
		return host{DefaultHost, "the default"}, nil
	}
	return hostOfContext(dir, name, by)
}

// configDir returns the directory of docker's config.json, "" if there is none.
func configDir() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker")
}

// hostOfContext returns the host of a context, which something names.
func hostOfContext(dir, name, by string) (host, error) {
	var meta struct {
		Endpoints struct {
			Docker struct{ Host string } `json:"docker"`
		}
	}
	file := filepath.Join(dir, "contexts", "meta", digest.FromString(name).Encoded(), "meta.json")
	err := readConfig(file, &meta)
	what := fmt.Sprintf("docker's context %.100q, which %s names", name, printable.Name(by))
	if errors.Is(err, fs.ErrNotExist) {
		return host{}, fmt.Errorf("%w: there is no %s", remote.ErrUnavailable, strings.Replace(what, "docker's", "docker", 1))
	}
	if err != nil {
		return host{}, err
	}
	return host{cmp.Or(meta.Endpoints.Docker.Host, DefaultHost), what + ","}, nil
}

// readConfig reads a file of JSON.
func readConfig(path string, to any) error {
	f, err := os.Open(path)
	if err != nil {
		return unreadable(path, err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(content) > maxConfig {
		err = fmt.Errorf("it has more than %d bytes", maxConfig)
	}
	if err == nil && json.Unmarshal(content, to) != nil {
		err = errors.New("it is not as docker writes it")
	}
	if err != nil {
		return unreadable(path, err)
	}
	return nil
}

func unreadable(path string, err error) error {
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	return fmt.Errorf("%w: which daemon is meant: %s: %w", remote.ErrUnavailable, printable.Name(path), err)
}

// socket returns the path of the socket that a host means.
func (h host) socket() (string, error) {
	path, ok := strings.CutPrefix(h.address, "unix://")
	if !ok {
		return "", fmt.Errorf("%w: %s is %.200q: a daemon is asked only over a socket of this machine, as %s", remote.ErrUnsupported, h.by, h.address, DefaultHost)
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%w: %s is %.200q: its path is not absolute", remote.ErrUnsupported, h.by, h.address)
	}
	return path, nil
}
