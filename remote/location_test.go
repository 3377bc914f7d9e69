package remote_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote"
)

func TestParseLocation(t *testing.T) {
	for _, c := range []struct {
		in   string
		want remote.Location
	}{
		{"fedora", remote.Location{Transport: "docker", Path: "fedora"}},
		{"fedora:latest", remote.Location{Transport: "docker", Path: "fedora:latest"}},
		{"localhost:5000/x", remote.Location{Transport: "docker", Path: "localhost:5000/x"}},
		{"quay.io/a@" + sum, remote.Location{Transport: "docker", Path: "quay.io/a@" + sum}},
		{"docker://fedora:latest", remote.Location{Transport: "docker", Path: "fedora:latest"}},
		{"docker://oci:8080/x", remote.Location{Transport: "docker", Path: "oci:8080/x"}},
		{"docker://dir:latest", remote.Location{Transport: "docker", Path: "dir:latest"}},
		{"docker:dind", remote.Location{Transport: "docker", Path: "docker:dind"}},
		{"docker", remote.Location{Transport: "docker", Path: "docker"}},
		{"oci", remote.Location{Transport: "docker", Path: "oci"}},
		{"dir", remote.Location{Transport: "docker", Path: "dir"}},
		{"directory:1", remote.Location{Transport: "docker", Path: "directory:1"}},
		{"oci:8080/x", remote.Location{Transport: "oci", Path: "8080/x"}},
		{"oci:/srv/layout", remote.Location{Transport: "oci", Path: "/srv/layout"}},
		{"oci:/srv/layout:v1", remote.Location{Transport: "oci", Path: "/srv/layout", Image: "v1"}},
		{"oci:a:b:c", remote.Location{Transport: "oci", Path: "a", Image: "b:c"}},
		{"oci:a:docker.io/library/x:1", remote.Location{Transport: "oci", Path: "a", Image: "docker.io/library/x:1"}},
		{"oci:a:@" + sum, remote.Location{Transport: "oci", Path: "a", Image: "@" + sum}},
		{"oci:a@" + sum, remote.Location{Transport: "oci", Path: "a", Image: "@" + sum}},
		{"oci:a@b:c", remote.Location{Transport: "oci", Path: "a@b", Image: "c"}},
		{"oci:a:@1", remote.Location{Transport: "oci", Path: "a", Image: "@1"}},
		{"oci:.", remote.Location{Transport: "oci", Path: "."}},
		{"oci-archive:a.tar:v1", remote.Location{Transport: "oci-archive", Path: "a.tar", Image: "v1"}},
		{"docker-archive:a.tar", remote.Location{Transport: "docker-archive", Path: "a.tar"}},
		{"docker-archive:a.tar:alpine:3.10", remote.Location{Transport: "docker-archive", Path: "a.tar", Image: "alpine:3.10"}},
		{"docker-archive:a.tar:localhost:5000/x:y", remote.Location{Transport: "docker-archive", Path: "a.tar", Image: "localhost:5000/x:y"}},
	} {
		got, err := remote.ParseLocation(c.in)
		if err != nil || got != c.want {
			t.Errorf("ParseLocation(%q): got %+v and error %v, want %+v", c.in, got, err, c.want)
			continue
		}
		if again, err := remote.ParseLocation(got.String()); err != nil || again != got {
			t.Errorf("ParseLocation(%q), which is String of %q: got %+v and error %v, want %+v", got, c.in, again, err, got)
		}
	}
}

func TestParseLocationErrors(t *testing.T) {
	for _, c := range []struct {
		in   string
		want error
		says string
	}{
		{"", remote.ErrReference, `""`},
		{"docker://", remote.ErrReference, "names no image"},
		{"oci:", remote.ErrReference, "names no directory"},
		{"oci::v1", remote.ErrReference, "names no directory"},
		{"oci:dir:", remote.ErrReference, "nothing follows"},
		{"docker-archive:", remote.ErrReference, "names no file"},
		{"oci-archive::x", remote.ErrReference, "names no file"},
		{"oci:a\x00b", remote.ErrReference, "zero byte"},
		{"dir:/tmp/x", remote.ErrUnsupported, "dir:"},
		{"dir:latest", remote.ErrUnsupported, "docker://dir:latest"},
		{"containers-storage:fedora", remote.ErrUnsupported, "containers-storage:"},
		{"docker-daemon:fedora:latest", remote.ErrUnsupported, "docker-daemon:"},
		{"ostree:x", remote.ErrUnsupported, "ostree:"},
		{"sif:x.sif", remote.ErrUnsupported, "sif:"},
		{"tarball:x.tar", remote.ErrUnsupported, "tarball:"},
	} {
		_, err := remote.ParseLocation(c.in)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("ParseLocation(%q): got error %v, want %v that says %q", c.in, err, c.want, c.says)
		}
	}
}

func FuzzParseLocation(f *testing.F) {
	for _, s := range []string{"fedora", "docker://x", "oci:a:b", "oci:a@" + sum, "oci:a:@1", "docker-archive:f:r:t", "dir:x", "oci::", "oci-archive:@:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := remote.ParseLocation(s)
		if err != nil {
			if !errors.Is(err, remote.ErrReference) && !errors.Is(err, remote.ErrUnsupported) {
				t.Errorf("ParseLocation(%q): got error %v without a sentinel", s, err)
			}
			return
		}
		if l.Path == "" {
			t.Errorf("ParseLocation(%q): the path is empty", s)
		}
		if again, err := remote.ParseLocation(l.String()); err != nil || again != l {
			t.Errorf("ParseLocation(%q), which is String of %q: got %+v and error %v, want %+v", l, s, again, err, l)
		}
	})
}
