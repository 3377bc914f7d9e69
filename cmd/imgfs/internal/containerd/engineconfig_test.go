package containerd

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// TestParseVersion reads what containerd of several builders prints.
func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1\n": {1, 6},
		"containerd github.com/containerd/containerd/v2 2.4.2 0123abcd\n":               {2, 4},
		"containerd github.com/containerd/containerd/v2 v2.1.0-rc.1 \n":                 {2, 1},
		"containerd containerd.io 1.7.27 05044ec0\n":                                    {1, 7},
		"2.4.2": {2, 4}, "1.6": {1, 6},
	} {
		if got, err := ParseVersion(text); got != want || err != nil {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "latest", "containerd x", "containerd github.com/containerd/containerd unknown", "2", "99999.1"} {
		if got, err := ParseVersion(text); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

// TestContainerdConfig: each version gets lines that it reads, with what it needs.
func TestContainerdConfig(t *testing.T) {
	const address = `/run/a "b"/s.sock`
	for v, want := range map[Version][]string{
		{1, 6}: {"version 2", "disable_snapshot_annotations false"},
		{1, 7}: {"version 2", "disable_snapshot_annotations false"},
		{2, 0}: {"version 3", "enable_remote_snapshot_annotations true"},
		{2, 4}: {"version 3", "enable_remote_snapshot_annotations true", "capabilities [remap-ids]"},
	} {
		p := Place{Address: address, Root: "/var/lib/imgfs", RemapIDs: v.Minor == 4}
		text, notes, err := ContainerdConfig(v, p)
		if err != nil {
			t.Fatal(err)
		}
		if said := strings.Contains(strings.Join(notes, "\n"), "commits"); said != (v != Version{2, 4}) {
			t.Errorf("%v: the notes are %q", v, notes)
		}
		var read struct {
			Version int
			Proxies map[string]struct {
				Type, Address string
				Capabilities  []string
				Exports       map[string]string
			} `toml:"proxy_plugins"`
		}
		if _, err := toml.Decode(text, &read); err != nil {
			t.Fatalf("%v: %v in\n%s", v, err, text)
		}
		proxy := read.Proxies["imgfs"]
		if proxy.Type != "snapshot" || proxy.Address != address || v.Major == 2 && proxy.Exports["root"] != p.Root {
			t.Errorf("%v: %+v", v, proxy)
		}
		flat := strings.NewReplacer(" = ", " ", `"`, "").Replace(text)
		for _, line := range want {
			if !strings.Contains(flat, line+"\n") {
				t.Errorf("%v has no %q:\n%s", v, line, text)
			}
		}
	}
	for _, c := range []struct {
		v Version
		p Place
	}{{Version{1, 5}, Place{}}, {Version{1, 6}, Place{RemapIDs: true}}} {
		if _, _, err := ContainerdConfig(c.v, c.p); err == nil || !strings.Contains(err.Error(), c.v.String()) {
			t.Errorf("%v, %+v: %v", c.v, c.p, err)
		}
	}
}

// TestDockerConfig: what docker gets is an object of JSON with what it needs.
func TestDockerConfig(t *testing.T) {
	text, _ := DockerConfig(`/run/"c".sock`)
	var read struct {
		Features   map[string]bool
		Driver     string `json:"storage-driver"`
		Containerd string
	}
	if err := json.Unmarshal([]byte(text), &read); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if !read.Features["containerd-snapshotter"] || read.Driver != "imgfs" || read.Containerd != `/run/"c".sock` {
		t.Errorf("%+v", read)
	}
}
