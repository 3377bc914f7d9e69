package bundle

import (
	"os"
	"path"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/fs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Missing returns the directories that a container needs and the tree does not have: those
// that the runtime mounts on, and the working directory that the config names. Where
// nobody can write to the root file system, whoever serves it has to add them, as docker
// puts a layer of mountpoints on each image. A path on which something else lies in the
// way is not among them.
func Missing(config *ocispec.Image, tree *fs.Tree, o *Options) []string {
	var missing []string
	add := func(name string) {
		if !slices.Contains(missing, name) && canAdd(tree, name) {
			missing = append(missing, name)
		}
	}
	mounts := defaultMounts(o)
	for i, m := range mounts {
		if !onMount(m.Destination, mounts[:i]) {
			add(m.Destination)
		}
	}
	for _, m := range o.Binds {
		if st, err := os.Stat(m.Source); err == nil && st.IsDir() && !onMount(m.Destination, mounts) {
			add(m.Destination)
		}
	}
	if dir := path.Join("/", config.Config.WorkingDir); o.Workdir == "" && !provided(dir, o) {
		add(dir)
	}
	return missing
}

// canAdd reports whether a tree has no such path, and would have it if directories were
// made.
func canAdd(tree *fs.Tree, name string) bool {
	n := tree.Root()
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		child, ok := n.Child(part)
		switch {
		case !ok:
			return !strings.HasPrefix(part, fs.WhiteoutPrefix) && len(part) <= 255 && len(name) < 4096
		case !isDir(child):
			return false
		}
		n = child
	}
	return false
}
