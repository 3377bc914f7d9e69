package containerd

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/imgfs/imgfs/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestChoose: layers are fetched of the platform that is wanted.
func TestChoose(t *testing.T) {
	listed := func(name, arch, of string) *manifest {
		m := &manifest{digest: digest.FromString(name), listed: &ocispec.Descriptor{}}
		if arch != "" {
			m.listed.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		}
		if of != "" {
			m.listed.Annotations = map[string]string{attests: digest.FromString(of).String()}
			m.listed.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		}
		return m
	}
	here, odd, attested, plain := listed("here", runtime.GOARCH, ""), listed("odd", "s390x", ""), listed("attested", "", "here"), listed("plain", "", "")
	alone := &manifest{digest: digest.FromString("alone")}
	for _, tt := range []struct {
		name     string
		all      []*manifest
		platform string
		known    *manifest
		want     []*manifest
	}{
		{"this machine's", []*manifest{odd, here}, "", nil, []*manifest{here}},
		{"with what attests it", []*manifest{here, odd, attested}, "", nil, []*manifest{here, attested}},
		{"the known one", []*manifest{here, odd, attested}, "", odd, []*manifest{odd}},
		{"the one that is named", []*manifest{here, odd, attested}, "linux/s390x", here, []*manifest{odd}},
		{"no index", []*manifest{alone}, "", nil, []*manifest{alone}},
		{"no index, and a platform", []*manifest{alone}, "linux/s390x", nil, []*manifest{alone}},
		{"no platform is stated", []*manifest{plain}, "", nil, []*manifest{plain}},
		{"none for this machine", []*manifest{odd}, "", nil, nil},
		{"none that is named", []*manifest{here}, "windows/amd64", nil, nil},
		{"only what attests", []*manifest{attested}, "", nil, nil},
	} {
		got, err := choose(tt.all, tt.platform, func(d digest.Digest) bool { return tt.known != nil && d == tt.known.digest })
		if fmt.Sprint(got) != fmt.Sprint(tt.want) || (err != nil) != (tt.want == nil) || err != nil && !errors.Is(err, remote.ErrPlatform) {
			t.Errorf("%s: got %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}
