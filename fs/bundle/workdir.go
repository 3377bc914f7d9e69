package bundle

import (
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// workdir returns the directory in which the command begins. One that the image names and
// does not have is made by the runtime, where it can; one that the user names has to be
// there, as podman has it.
func workdir(tree *fs.Tree, config *ocispec.ImageConfig, o *Options) (string, error) {
	dir, own := config.WorkingDir, false
	if o.Workdir != "" {
		dir, own = o.Workdir, true
		if !strings.HasPrefix(dir, "/") {
			return "", refuse(BadWorkdir, "working directory %s: not an absolute path", printable.Name(dir))
		}
	}
	if strings.ContainsRune(dir, 0) {
		return "", refuse(BadWorkdir, "working directory %s: it has a NUL byte", printable.Name(dir))
	}
	dir = path.Join("/", dir)
	n, err := tree.Lookup(dir, true)
	switch {
	case provided(dir, o), err != nil && slices.Contains(o.Added, dir):
	case err == nil && !isDir(n):
		return "", refuse(BadWorkdir, "working directory %s: not a directory in the image", printable.Name(dir))
	case err != nil && o.Bare:
		return "", refuse(BadWorkdir, "working directory %s: it is not in the image, whose mount nobody can write to", printable.Name(dir))
	case err != nil && own && !o.Changed:
		return "", refuse(BadWorkdir, "working directory %s: it is not in the image", printable.Name(dir))
	}
	return dir, nil
}

// provided reports whether a path lies in what is mounted into the container.
func provided(name string, o *Options) bool {
	for _, m := range defaultMounts(o) {
		if below(name, m.Destination) {
			return true
		}
	}
	for _, m := range o.Binds {
		if below(name, m.Destination) {
			return true
		}
	}
	return false
}

// below reports whether the path name is dir or in it.
func below(name, dir string) bool {
	name, dir = path.Join("/", name), path.Join("/", dir)
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

func isDir(n fs.Node) bool { return n.Mode()&syscall.S_IFMT == syscall.S_IFDIR }

func isLink(n fs.Node) bool { return n.Mode()&syscall.S_IFMT == syscall.S_IFLNK }

func isRegular(n fs.Node) bool { return n.Mode()&syscall.S_IFMT == syscall.S_IFREG }
