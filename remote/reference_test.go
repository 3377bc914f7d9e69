package remote_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

const sum = "sha256:c0537ff6a5218ef531ece93d4984efc99bbf3f7497c0a7726c88e2bb7584dc96"

func TestParseReference(t *testing.T) {
	for _, c := range []struct{ in, registry, repository, tag, digest string }{
		{"fedora", "docker.io", "library/fedora", "latest", ""},
		{"fedora:42", "docker.io", "library/fedora", "42", ""},
		{"fedora@" + sum, "docker.io", "library/fedora", "", sum},
		{"fedora:42@" + sum, "docker.io", "library/fedora", "", sum},
		{"grafana/grafana", "docker.io", "grafana/grafana", "latest", ""},
		{"docker.io/fedora", "docker.io", "library/fedora", "latest", ""},
		{"docker.io/library/fedora:latest", "docker.io", "library/fedora", "latest", ""},
		{"index.docker.io/fedora", "docker.io", "library/fedora", "latest", ""},
		{"registry-1.docker.io/fedora:1", "docker.io", "library/fedora", "1", ""},
		{"registry-1.docker.io/a/b@" + sum, "docker.io", "a/b", "", sum},
		{"quay.io/a/b@" + sum, "quay.io", "a/b", "", sum},
		{"quay.io/a/b/c/d:v1.2_x-3", "quay.io", "a/b/c/d", "v1.2_x-3", ""},
		{"localhost/x", "localhost", "x", "latest", ""},
		{"localhost:5000/x", "localhost:5000", "x", "latest", ""},
		{"localhost:5000", "docker.io", "library/localhost", "5000", ""},
		{"127.0.0.1:5000/x:y", "127.0.0.1:5000", "x", "y", ""},
		{"[::1]:5000/x", "[::1]:5000", "x", "latest", ""},
		// Like docker: a first part with capitals can only be a registry.
		{"Registry/x", "Registry", "x", "latest", ""},
		{"x:Y", "docker.io", "library/x", "Y", ""},
		{"a__b/c-d.e", "docker.io", "a__b/c-d.e", "latest", ""},
		{"dir:latest", "docker.io", "library/dir", "latest", ""},
	} {
		got, err := remote.ParseReference(c.in)
		want := remote.Reference{Registry: c.registry, Repository: c.repository, Tag: c.tag, Digest: digest.Digest(c.digest)}
		if err != nil || got != want {
			t.Errorf("ParseReference(%q): got %+v and error %v, want %+v", c.in, got, err, want)
			continue
		}
		if again, err := remote.ParseReference(got.String()); err != nil || again != got {
			t.Errorf("ParseReference(%q), which is String of %q: got %+v and error %v, want %+v", got, c.in, again, err, got)
		}
	}
}

func TestParseRepository(t *testing.T) {
	for in, want := range map[string]string{
		"indexes": "docker.io/library/indexes", "team/indexes": "docker.io/team/indexes", "localhost:5000/x": "localhost:5000/x",
		"[::1]:5000/a/b": "[::1]:5000/a/b", "registry-1.docker.io/a/b": "docker.io/a/b",
	} {
		if got, err := remote.ParseRepository(in); err != nil || got.Name() != want || got.Tag != "" || got.Digest != "" {
			t.Errorf("ParseRepository(%q): got %+v and error %v, want %s", in, got, err, want)
		}
	}
	for in, says := range map[string]string{
		"": "empty", "localhost:5000": "no tag", "localhost:5000/x:latest": "no tag", "x@" + sum: "no digest", "x:1@" + sum: "no digest",
		"Team/x:1": "", "http://localhost/x": "leave out",
	} {
		if got, err := remote.ParseRepository(in); !errors.Is(err, remote.ErrReference) || !strings.Contains(err.Error(), says) {
			t.Errorf("ParseRepository(%q): got %+v and error %v, want one that says %q", in, got, err, says)
		}
	}
}

func TestParseReferenceErrors(t *testing.T) {
	for _, c := range []struct{ in, says string }{
		{"", "empty"},
		{"  ", "empty"},
		{"fed ora", `"fed ora" has a space`},
		{"fedora\n", "control character"},
		{"Fedora", `try "fedora"`},
		{"quay.io/A/b:V1", `try "quay.io/a/b:V1"`},
		{"https://quay.io/a/b", `leave out "https://": "quay.io/a/b"`},
		{"docker://fedora", `leave out "docker://"`},
		{"https://a/$(id)", `leave out "https://": 'a/$(id)'`},
		{"https://a/`id`\n", `leave out "https://": $'a/` + "`id`" + `\n'`},
		{"fedora@sha256:123", `"sha256:123" is not a digest`},
		{"fedora@md5:d41d8cd98f00b204e9800998ecf8427e", "is not a digest"},
		{"fedora@", `"" is not a digest`},
		{"fedora:a b", "space"},
		{"fedora:", `"" is not a tag`},
		{"fedora:-x", `"-x" is not a tag`},
		{"fedora:" + strings.Repeat("x", 129), "is not a tag"},
		{"quay.io/", "is not an image's name"},
		{"a//b", `"a//b" is not an image's name`},
		{"../etc/passwd", `"../etc/passwd" is not an image's name`},
		{"-x", "is not an image's name"},
		{"a_b.example/x", `"a_b.example" is not the name of a host`},
		{"try-1.do_k1cker.example/x:y", "is not the name of a host"},
		{strings.Repeat("a", 300), "aaa"},
		{sum[7:], "hexadecimal"},
	} {
		_, err := remote.ParseReference(c.in)
		if !errors.Is(err, remote.ErrReference) {
			t.Errorf("ParseReference(%q): got error %v, want %v", c.in, err, remote.ErrReference)
			continue
		}
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("ParseReference(%q): got error %q, want one that says %q", c.in, err, c.says)
		}
		if len(err.Error()) > 600 {
			t.Errorf("ParseReference(%q): the error has %d bytes", c.in, len(err.Error()))
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"fedora", "quay.io/a/b:c@" + sum, "registry-1.docker.io/x", "localhost:5000/x", "[::1]:80/x", "A/b", "https://x", "a@b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := remote.ParseReference(s)
		if err != nil {
			if !errors.Is(err, remote.ErrReference) {
				t.Errorf("ParseReference(%q): got error %v, want %v", s, err, remote.ErrReference)
			}
			return
		}
		if (r.Tag == "") == (r.Digest == "") {
			t.Errorf("ParseReference(%q): got %+v, want a tag or a digest", s, r)
		}
		if again, err := remote.ParseReference(r.String()); err != nil || again != r {
			t.Errorf("ParseReference(%q), which is String of %q: got %+v and error %v, want %+v", r, s, again, err, r)
		}
	})
}
