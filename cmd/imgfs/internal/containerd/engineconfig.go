package containerd

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Version is that of containerd.
type Version struct{ Major, Minor int }

// String writes it as in 2.4.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// before reports whether v is an older one.
func (v Version) before(major, minor int) bool {
	return v.Major < major || v.Major == major && v.Minor < minor
}

var versionText = regexp.MustCompile(`^v?([0-9]{1,4})\.([0-9]{1,4})([.~+-].*)?$`)

// ParseVersion reads a version as in 2.4.2, or what containerd --version prints, which has it
// as its third word.
func ParseVersion(text string) (Version, error) {
	word := strings.TrimSpace(text)
	if words := strings.Fields(text); len(words) > 2 && words[0] == "containerd" {
		word = words[2]
	}
	m := versionText.FindStringSubmatch(word)
	if m == nil {
		return Version{}, fmt.Errorf("version of containerd %.100q: it is as in 1.6 or 2.4.2", word)
	}
	v := Version{}
	v.Major, _ = strconv.Atoi(m[1]) // few digits, as the pattern has it
	v.Minor, _ = strconv.Atoi(m[2])
	return v, nil
}

// oldest is the first version that asks for lazy snapshots.
var oldest = Version{1, 6}

// A Place is what containerd has to know of a snapshotter.
type Place struct {
	Address, Root string
	RemapIDs      bool // snapshotter.Options.RemapIDs
}

// ContainerdConfig returns what belongs into the configuration of containerd, and what a
// reader should know.
func ContainerdConfig(v Version, p Place) (config string, notes []string, err error) {
	if v.before(oldest.Major, oldest.Minor) {
		return "", nil, fmt.Errorf("containerd %s asks for no lazy snapshots: %s is the first version that does", v, oldest)
	}
	if p.RemapIDs && v.Major < 2 {
		return "", nil, fmt.Errorf("containerd %s asks a snapshotter that it does not have itself for no idmapped mounts: leave out --remap-ids", v)
	}
	if v.before(2, 3) {
		notes = append(notes, "commits (nerdctl commit, docker commit, ctr snapshot diff) fail with this version on images without extended attributes, unless imgfs snapshotter has --xattrs")
	}
	var text strings.Builder
	if v.Major < 2 {
		fmt.Fprintf(&text, `version = 2

[proxy_plugins.imgfs]
  type = "snapshot"
  address = %s

# For Kubernetes and crictl:
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "imgfs"
  disable_snapshot_annotations = false
`, quote(p.Address))
		return text.String(), append(notes, "ctr image pull of this version unpacks; what is pulled by crictl, Kubernetes or a client of its own is lazy"), nil
	}
	capabilities := ""
	if p.RemapIDs {
		capabilities = "\n  capabilities = [\"remap-ids\"]"
		notes = append(notes, "imgfs snapshotter needs --remap-ids too: else files in user namespaces have the wrong owners")
	}
	fmt.Fprintf(&text, `version = 3

[proxy_plugins.imgfs]
  type = "snapshot"
  address = %s%s
[proxy_plugins.imgfs.exports]
  root = %s
  enable_remote_snapshot_annotations = "true"

# For ctr image pull --snapshotter imgfs, and without it:
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "overlayfs"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "imgfs"

# For Kubernetes and crictl:
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "imgfs"
`, quote(p.Address), capabilities, quote(p.Root))
	if v.before(2, 1) {
		notes = append(notes, "ctr image pull of this version unpacks; what is pulled by crictl, Kubernetes or a client of its own is lazy")
	}
	return text.String(), notes, nil
}

// DockerConfig returns what belongs into docker's daemon.json.
func DockerConfig(containerd string) (config string, notes []string) {
	return fmt.Sprintf(`{
  "features": {"containerd-snapshotter": true},
  "storage-driver": "imgfs",
  "containerd": %s
}
`, quote(containerd)), []string{
			"containerd needs its own lines: imgfs snapshotter config containerd",
			"images that docker has pulled before belong to its other store: pull them again",
			"docker save and docker push need layers that were never fetched: docs/engines.md says how they get there",
		}
}

// quote writes a string as JSON has it, which TOML reads as well.
func quote(s string) string {
	text, _ := json.Marshal(s) // a string can always be written
	return string(text)
}
