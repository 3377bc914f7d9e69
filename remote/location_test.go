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

func TestCutPath(t *testing.T) {
	for _, c := range []struct{ in, image, path string }{
		{"fedora:/etc/os-release", "fedora", "/etc/os-release"},
		{"fedora:41:/etc", "fedora:41", "/etc"},
		{"fedora:/", "fedora", "/"},
		{"fedora://etc", "fedora", "//etc"},
		{"fedora:41:/etc/", "fedora:41", "/etc/"},
		{"fedora:/a:/b:c", "fedora", "/a:/b:c"},
		{"fedora:/new\nline", "fedora", "/new\nline"},
		{"localhost:5000/a/b:/etc", "localhost:5000/a/b", "/etc"},
		{"localhost:5000/a/b:v1:/etc", "localhost:5000/a/b:v1", "/etc"},
		{"localhost:5000/a/b@" + sum + ":/etc", "localhost:5000/a/b@" + sum, "/etc"},
		{"a/b:v1@" + sum + ":/etc", "a/b:v1@" + sum, "/etc"},
		{"[::1]:5000/a/b:/etc", "[::1]:5000/a/b", "/etc"},
		{"docker://fedora:/etc", "docker://fedora", "/etc"},
		{"docker://fedora:41:/etc", "docker://fedora:41", "/etc"},
		{"docker://oci:/etc", "docker://oci", "/etc"},
		{"docker:/etc", "docker", "/etc"},
		{"docker:dind:/etc", "docker:dind", "/etc"},
		{"oci:dir:/etc", "oci:dir", "/etc"},
		{"oci:/abs/dir:/etc", "oci:/abs/dir", "/etc"},
		{"oci:/abs/dir:tag:/etc", "oci:/abs/dir:tag", "/etc"},
		{"oci:dir:docker.io/library/x:latest:/etc", "oci:dir:docker.io/library/x:latest", "/etc"},
		{"oci:dir:@0:/etc", "oci:dir:@0", "/etc"},
		{"oci:dir@" + sum + ":/etc", "oci:dir@" + sum, "/etc"},
		{"oci:.:/etc", "oci:.", "/etc"},
		{"oci-archive:/a.tar:v1:/etc", "oci-archive:/a.tar:v1", "/etc"},
		{"docker-archive:a.tar:/etc", "docker-archive:a.tar", "/etc"},
		{"docker-archive:/a.tar:localhost:5000/x:y:/etc", "docker-archive:/a.tar:localhost:5000/x:y", "/etc"},
		{"./dir:/etc", "./dir", "/etc"},
		{"/srv/a.tar:v1:/etc", "/srv/a.tar:v1", "/etc"},
		// These have no path.
		{"fedora", "", ""}, {"fedora:41", "", ""}, {"fedora:etc", "", ""}, {"localhost:5000/a", "", ""}, {"", "", ""},
		{"oci:/abs/dir", "", ""}, {"oci:/abs/dir:tag", "", ""}, {"docker-archive:/a.tar", "", ""}, {"docker://fedora", "", ""},
		{"oci:dir:docker.io/library/x:latest", "", ""}, {"docker-archive:a.tar:localhost:5000/x:y", "", ""},
		// These are refused by others.
		{":/etc", "", ""}, {"oci::/etc", "", ""}, {"docker://:/etc", "", ""}, {"dir:/tmp/x", "", ""}, {"dir:/tmp/x:/etc", "", ""},
		{"docker-daemon:fedora:/etc", "", ""}, {"containers-storage:fedora:/etc", "", ""},
		{"https://quay.io/a/b", "", ""}, {"http://localhost:5000/a", "", ""}, {"file:///srv/a.tar", "", ""},
	} {
		image, path, found := remote.CutPath(c.in)
		if c.path == "" && c.image == "" {
			c.image = c.in
		}
		if image != c.image || path != c.path || found != (c.path != "") {
			t.Errorf("CutPath(%q): got %q, %q and %t, want %q and %q", c.in, image, path, found, c.image, c.path)
		}
	}
}

func FuzzCutPath(f *testing.F) {
	for _, s := range []string{"fedora:/x", "docker://x:/y", "oci:a:b:/c", "oci:a@" + sum + ":/", "dir:x:/y", "oci::/", "https://x", ":/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		image, path, found := remote.CutPath(s)
		if !found {
			if image != s || path != "" {
				t.Errorf("CutPath(%q): got %q and %q without a path, want what was given", s, image, path)
			}
			return
		}
		if image+":"+path != s || !strings.HasPrefix(path, "/") {
			t.Errorf("CutPath(%q): got %q and %q", s, image, path)
		}
		if more, below, again := remote.CutPath(image); again {
			t.Errorf("CutPath(%q): its image is cut once more, into %q and %q", s, more, below)
		}
		if l, err := remote.ParseLocation(image); err == nil && strings.Contains(l.Path+l.Image, ":/") {
			t.Errorf("CutPath(%q): %q is left in the image %+v", s, ":/", l)
		}
	})
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
