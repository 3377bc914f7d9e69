package remote_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

func TestFallbackTag(t *testing.T) {
	t.Parallel()
	for d, want := range map[digest.Digest]string{
		sum: "sha256-" + strings.TrimPrefix(sum, "sha256:"),
		digest.Digest("sha512:" + strings.Repeat("ab", 64)): "sha512-" + strings.Repeat("ab", 32),
		"a+b.c:d=e": "a-b.c-d-e",
	} {
		if got := remote.FallbackTag(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

// FuzzArtifact: whatever comes in place of an artifact or of a list of them is refused
// or within the limits.
func FuzzArtifact(f *testing.F) {
	for _, seed := range []string{
		// An index manifest and a fallback index by soci 0.16.1, shortened.
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.amazon.soci.index.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/octet-stream","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"annotations":{"com.amazon.soci.image-layer-digest":"sha256:8fe2d67c38c20aaf6f1b6a7a3cab95bb497a0ca686c9e37f03310bb373e2d088"}}],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:cc7e6afe2b654df5fc00f6b04bdb052ea04727428372a987e8f6268335dc0759","size":629},"annotations":{"com.amazon.soci.build-tool-identifier":"AWS SOCI CLI v0.2"}}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:4c44027a2e614f429213919bc3de713fac5a26a8d4ba4888c1ef92ddd593ece7","size":1262,"annotations":{"com.amazon.soci.build-tool-identifier":"AWS SOCI CLI v0.2"},"artifactType":"application/vnd.amazon.soci.index.v1+json"}]}`,
		`{"manifests":[{"digest":"sha256:","size":-1},{"size":1e99}]}`,
		`{"layers":[],"annotations":{"a":1,"b":"c","a":"d"},"subject":[]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		list := &remote.ReferrerList{Subject: sum}
		if err := list.AddIndex(content); err == nil {
			seen := make(map[digest.Digest]bool)
			for _, desc := range list.Found() {
				if desc.Digest.Validate() != nil || desc.Digest == sum || seen[desc.Digest] || desc.Data != nil || desc.URLs != nil {
					t.Errorf("%s: found %+v", content, desc)
				}
				seen[desc.Digest] = true
			}
			if len(seen) > remote.MaxReferrers {
				t.Errorf("found %d", len(seen))
			}
		}
		store := sourcetest.NewStore()
		desc := store.Put("", content)
		a, err := remote.OpenArtifact(t.Context(), store.Source("test", desc), desc)
		if err != nil {
			return
		}
		for _, l := range a.Layers {
			if l.Digest.Validate() != nil || l.Size < 0 || l.Data != nil || l.URLs != nil {
				t.Errorf("%s: layer %+v", content, l)
			}
		}
		if a.Descriptor.Digest != desc.Digest || a.Subject != nil && a.Subject.Digest == "" {
			t.Errorf("%s: got %+v", content, a)
		}
	})
}

// Lists are added up, each digest once, up to the limit.
func TestReferrerList(t *testing.T) {
	t.Parallel()
	list := &remote.ReferrerList{Subject: sum, Type: "a/b"}
	page := func(from, to int) []byte {
		var all []string
		for i := from; i < to; i++ {
			all = append(all, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"artifactType":%q}`, manifestType, digest.FromString(fmt.Sprint(i)), []string{"a/b", "c/d"}[i%2]))
		}
		return fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[%s]}`, strings.Join(all, ","))
	}
	for _, tc := range []struct{ from, to, want int }{{0, 10, 5}, {5, 20, 10}, {0, 1000, remote.MaxReferrers}, {1000, 1010, remote.MaxReferrers}} {
		if err := list.AddIndex(page(tc.from, tc.to)); err != nil {
			t.Fatal(err)
		}
		if n := len(list.Found()); n != tc.want || list.Full() != (n == remote.MaxReferrers) {
			t.Errorf("%d to %d: got %d, full %t, want %d", tc.from, tc.to, n, list.Full(), tc.want)
		}
	}
}
