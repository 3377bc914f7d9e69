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
		{"-", remote.Location{Transport: "-", Path: "-"}},
		{"-:v1", remote.Location{Transport: "-", Path: "-", Image: "v1"}},
		{"-:localhost:5000/x:y", remote.Location{Transport: "-", Path: "-", Image: "localhost:5000/x:y"}},
		{"-@" + sum, remote.Location{Transport: "-", Path: "-", Image: "@" + sum}},
		{"oci-archive:-", remote.Location{Transport: "oci-archive", Path: "-"}},
		{"docker-archive:-:alpine:3.10", remote.Location{Transport: "docker-archive", Path: "-", Image: "alpine:3.10"}},
		{"-x", remote.Location{Transport: "docker", Path: "-x"}},
		{"docker://-", remote.Location{Transport: "docker", Path: "-"}},
		{"docker-daemon:fedora", remote.Location{Transport: "docker-daemon", Path: "fedora"}},
		{"docker-daemon:localhost:5000/x:y", remote.Location{Transport: "docker-daemon", Path: "localhost:5000/x:y"}},
		{"docker-daemon:" + sum, remote.Location{Transport: "docker-daemon", Path: sum}},
		{"docker-daemon:x@" + sum, remote.Location{Transport: "docker-daemon", Path: "x@" + sum}},
		{"docker-archive:a.tar:localhost:5000/x:y", remote.Location{Transport: "docker-archive", Path: "a.tar", Image: "localhost:5000/x:y"}},
		{"containers-storage:localhost/x", remote.Location{Transport: "containers-storage", Image: "localhost/x"}},
		{"containers-storage:x:1@" + sum, remote.Location{Transport: "containers-storage", Image: "x:1@" + sum}},
		{"containers-storage:@" + sum, remote.Location{Transport: "containers-storage", Image: "@" + sum}},
		{"containers-storage:[/a:b]x", remote.Location{Transport: "containers-storage", Path: "/a:b", Image: "x"}},
		{"containers-storage:[overlay@/a+/run:o=1]localhost:5000/x:y", remote.Location{Transport: "containers-storage", Path: "overlay@/a+/run:o=1", Image: "localhost:5000/x:y"}},
		{"containerd:docker.io/library/x:1", remote.Location{Transport: "containerd", Image: "docker.io/library/x:1"}},
		{"containerd:[k8s.io@/a]x", remote.Location{Transport: "containerd", Path: "k8s.io@/a", Image: "x"}},
		{"docker://containerd:1.7", remote.Location{Transport: "docker", Path: "containerd:1.7"}},
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
		{"containers-storage:", remote.ErrReference, "names no image"},
		{"containers-storage:[overlay@/x", remote.ErrReference, "nothing closes"},
		{"containers-storage:[]x", remote.ErrReference, "nothing in the brackets"},
		{"containers-storage:[/x]", remote.ErrReference, "names no image"},
		{"containers-storage:[/x][/y]z", remote.ErrReference, "begins with a bracket"},
		{"containerd:[default]a\x00b", remote.ErrReference, "zero byte"},
		{"containerd:[a\x00b]x", remote.ErrReference, "zero byte"},
		{"-:", remote.ErrReference, `"-:": nothing follows`},
		{"docker-daemon:", remote.ErrReference, "names no image"},
		{"docker-daemon:a\x00b", remote.ErrReference, "zero byte"},
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
		{"-:/etc", "-", "/etc"},
		{"-:v1:/etc", "-:v1", "/etc"},
		{"docker-archive:-:/etc", "docker-archive:-", "/etc"},
		{"docker-daemon:fedora:/etc", "docker-daemon:fedora", "/etc"},
		{"docker-daemon:localhost:5000/a:v1:/etc", "docker-daemon:localhost:5000/a:v1", "/etc"},
		{"docker-daemon:" + sum + ":/etc", "docker-daemon:" + sum, "/etc"},
		{"containers-storage:fedora:/etc", "containers-storage:fedora", "/etc"},
		{"containers-storage:localhost:5000/x:y:/etc", "containers-storage:localhost:5000/x:y", "/etc"},
		{"containers-storage:@" + sum + ":/etc", "containers-storage:@" + sum, "/etc"},
		{"containers-storage:[overlay@/a:/b]x:/etc", "containers-storage:[overlay@/a:/b]x", "/etc"},
		{"containers-storage:[/a]x:1:/", "containers-storage:[/a]x:1", "/"},
		{"containerd:[k8s.io@/a]x:/etc", "containerd:[k8s.io@/a]x", "/etc"},
		{"./dir:/etc", "./dir", "/etc"},
		{"/srv/a.tar:v1:/etc", "/srv/a.tar:v1", "/etc"},
		// These have no path.
		{"fedora", "", ""}, {"fedora:41", "", ""}, {"fedora:etc", "", ""}, {"localhost:5000/a", "", ""}, {"", "", ""},
		{"oci:/abs/dir", "", ""}, {"oci:/abs/dir:tag", "", ""}, {"docker-archive:/a.tar", "", ""}, {"docker://fedora", "", ""},
		{"oci:dir:docker.io/library/x:latest", "", ""}, {"docker-archive:a.tar:localhost:5000/x:y", "", ""},
		// These are refused by others.
		{":/etc", "", ""}, {"oci::/etc", "", ""}, {"docker://:/etc", "", ""}, {"dir:/tmp/x", "", ""}, {"dir:/tmp/x:/etc", "", ""},
		{"containers-storage::/etc", "", ""}, {"containerd:[/a]:/etc", "", ""}, {"containers-storage:[/a", "", ""},
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
	for _, s := range []string{"-:/x", "-:v:/x", "docker-daemon:x:/y", "fedora:/x", "docker://x:/y", "oci:a:b:/c", "oci:a@" + sum + ":/", "dir:x:/y", "oci::/", "https://x", ":/"} {
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
