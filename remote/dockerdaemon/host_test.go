package dockerdaemon_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerdaemon"
)

// A daemon is found as docker's client finds it.
func TestHost(t *testing.T) {
	f := newFake(t, nil)
	const absent = "unix:///absent/socket"
	for _, c := range []struct {
		name                  string
		host, context, config string // DOCKER_HOST, DOCKER_CONTEXT and config.json
		contexts              map[string]string
		given                 string
		says                  string // "": it is found
	}{
		{name: "given", host: absent, given: f.host},
		{name: "DOCKER_HOST", host: f.host, context: "none", config: `{`},
		{name: "the context of config.json", config: `{"auths":{},"currentContext":"rootless"}`, contexts: map[string]string{"rootless": f.host}},
		{name: "DOCKER_CONTEXT", context: "a b", config: `{"currentContext":"rootless"}`, contexts: map[string]string{"rootless": absent, "a b": f.host}},
		{name: "no config.json", says: "/docker.sock"},
		{name: "no context", config: `{"auths":{}}`, says: "/docker.sock"},
		{name: "the context default", config: `{"currentContext":"default"}`, contexts: map[string]string{"default": f.host}, says: "/docker.sock"},
		{name: "DOCKER_CONTEXT is default", context: "default", config: `{"currentContext":"rootless"}`, contexts: map[string]string{"rootless": f.host}, says: "/docker.sock"},
		{name: "a context elsewhere", config: `{"currentContext":"far"}`, contexts: map[string]string{"far": "ssh://user@example.com"}, says: `docker's context "far", which CONFIG/config.json names, is "ssh://user@example.com": a daemon is asked only over a socket`},
		{name: "a context of tcp", context: "far", contexts: map[string]string{"far": "tcp://127.0.0.1:1"}, says: `docker's context "far", which DOCKER_CONTEXT names, is "tcp://127.0.0.1:1"`},
		{name: "a context that is not there", config: `{"currentContext":"gone\u001b[2J"}`, says: `there is no docker context "gone\x1b[2J", which CONFIG/config.json names`},
		{name: "no JSON", config: `{`, says: "CONFIG/config.json: it is not as docker writes it"},
		{name: "long", config: strings.Repeat(" ", 2<<20), says: "CONFIG/config.json: it has more than 1048576 bytes"},
		{name: "a damaged context", context: "x", contexts: map[string]string{"x": `","`}, says: "meta.json: it is not as docker writes it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("DOCKER_HOST", c.host)
			t.Setenv("DOCKER_CONTEXT", c.context)
			if c.config != "" {
				writeFile(t, filepath.Join(dir, "config.json"), c.config)
			}
			for name, address := range c.contexts {
				writeFile(t, filepath.Join(dir, "contexts/meta", digest.FromString(name).Encoded(), "meta.json"),
					fmt.Sprintf(`{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":"%s","SkipTLSVerify":false}}}`, name, address))
			}
			if c.says != "" && strings.HasSuffix(c.says, "/docker.sock") {
				if _, err := os.Stat("/var/run/docker.sock"); err == nil {
					t.Skip("there is a daemon of docker at the default address, which is not to be asked")
				}
			}
			src, err := dockerdaemon.Open(t.Context(), "app", &dockerdaemon.Options{Host: c.given})
			if err == nil {
				src.Close()
			}
			says := strings.ReplaceAll(c.says, "CONFIG", dir)
			switch {
			case says == "" && err != nil:
				t.Error(err)
			case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
				t.Errorf("error %v, want one that says %s", err, says)
			case says != "" && !errors.Is(err, remote.ErrUnavailable) && !errors.Is(err, remote.ErrUnsupported):
				t.Errorf("error %v is none of those of Open", err)
			}
		})
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}
