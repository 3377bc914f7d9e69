package containerdstore

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

const (
	usualRoot = "/var/lib/containerd"
	// Where docker has its images with containerd's image store.
	dockerRoot      = "/var/lib/docker/containerd/daemon"
	dockerNamespace = "moby"
)

// A place is where a store lies, and a namespace in it.
type place struct {
	root, namespace string
}

// parsePlace reads NAMESPACE@ROOT, NAMESPACE or ROOT, which is an absolute path.
// Namespaces have neither a slash nor an @ in their names.
func parsePlace(spec string) (place, error) {
	namespace, root, both := strings.Cut(spec, "@")
	switch {
	case strings.HasPrefix(spec, "/"):
		namespace, root = "", spec
	case both && (namespace == "" || !filepath.IsAbs(root)), strings.Contains(namespace, "/"):
		return place{}, fmt.Errorf("%w: [%s] is not [NAMESPACE@ROOT], [NAMESPACE] or [ROOT] with an absolute path", remote.ErrReference, spec)
	}
	p := place{root: root, namespace: cmp.Or(namespace, os.Getenv("CONTAINERD_NAMESPACE"), "default")}
	if p.root == "" {
		p.root = rootOfUser()
	}
	p.root = filepath.Clean(p.root)
	return p, nil
}

// rootOfUser returns where this user's containerd has its store: for others than root
// that of a rootless one, if there is one.
func rootOfUser() string {
	home := os.Getenv("HOME")
	if data := os.Getenv("XDG_DATA_HOME"); os.Geteuid() != 0 && (data != "" || home != "") {
		own := filepath.Join(cmp.Or(data, filepath.Join(home, ".local/share")), "containerd")
		if _, err := os.Stat(filepath.Join(own, databaseFile)); err == nil {
			return own
		}
	}
	var conf struct {
		Root string `toml:"root"`
	}
	const file, most = "/etc/containerd/config.toml", 1 << 20
	// A file that cannot be read says nothing.
	if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Size() <= most {
		if text, err := os.ReadFile(file); err == nil && toml.Unmarshal(text, &conf) == nil && filepath.IsAbs(conf.Root) {
			return conf.Root
		}
	}
	return usualRoot
}

// choose returns the name that an image has in the database.
func choose(images bucket, wanted string) (string, error) {
	for _, name := range []string{wanted, remote.Canonical(wanted)} {
		if name == "" {
			continue
		}
		if _, ok, err := images.bucket(name); err != nil || ok {
			return name, err
		}
	}
	asked, byDigest := strings.CutPrefix(wanted, "@")
	if d := digest.Digest(asked); byDigest && d.Validate() != nil {
		return "", fmt.Errorf("%w: %.100q is not @ and a digest", remote.ErrReference, wanted)
	}
	var all, found []string
	err := images.each(func(e element) error {
		name := string(e.key)
		if len(all) == maxImages {
			return fmt.Errorf("%w: more than %d images", remote.ErrUnsupported, maxImages)
		}
		all = append(all, name)
		if !byDigest {
			if remote.IsShortFor(wanted, name) {
				found = append(found, name)
			}
			return nil
		}
		desc, err := target(images, name)
		if err == nil && desc.Digest == digest.Digest(asked) {
			found = append(found, name)
		}
		return err
	})
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", &remote.NameError{Image: wanted, Names: all}
	case len(found) > 1 && !byDigest:
		return several(images, wanted, found)
	}
	return found[0], nil
}

// several returns the first of several names if all are of one image.
func several(images bucket, wanted string, names []string) (string, error) {
	first, err := target(images, names[0])
	for _, name := range names[1:] {
		desc, failed := target(images, name)
		if err = cmp.Or(err, failed); err == nil && desc.Digest != first.Digest {
			return "", &remote.AmbiguousError{Image: wanted, Named: names} // Open adds locations
		}
	}
	return names[0], err
}
