package bundle

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestGolden: the whole config, of root's container and of a plain user's, but for what
// depends on the machine. The tests of cmd/imgfs have runc and crun run such configs.
func TestGolden(t *testing.T) {
	for name, o := range map[string]*Options{
		"root.json": {User: "bob", Terminal: true, Hostname: "box", Bare: true},
		"rootless.json": {Rootless: true, Network: NetworkHost, Workdir: "/srv", Env: []string{"A=1"},
			UIDs: []specs.LinuxIDMapping{{HostID: 1000, Size: 1}}, GIDs: []specs.LinuxIDMapping{{HostID: 1001, Size: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := Spec(t.Context(), shell(), treeOf(t, smallRoot()...), o)
			if err != nil {
				t.Fatal(err)
			}
			if s := spec.Linux.Seccomp; s != nil && (s.DefaultAction != specs.ActErrno || len(s.Syscalls) < 5) {
				t.Errorf("the seccomp profile has %d rules and does by default %s", len(s.Syscalls), s.DefaultAction)
			}
			spec.Linux.Seccomp = nil
			spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
			got, err := json.MarshalIndent(spec, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got)+"\n" != string(want) {
				t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
			}
		})
	}
}
