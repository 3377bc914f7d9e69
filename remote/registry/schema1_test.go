package registry_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// TestSignedSchema1: the digest of a signed schema 1 manifest is that of what is
// signed. By it the whole document is found, and no other one.
func TestSignedSchema1(t *testing.T) {
	const mediaType = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	payload := `{
   "schemaVersion": 1,
   "name": "app",
   "fsLayers": []
}`
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	length := strings.LastIndex(payload, "\n}")
	protected := encode(fmt.Sprintf(`{"formatLength":%d,"formatTail":%q,"time":"2015-01-01T00:00:00Z"}`, length, encode("\n}")))
	signed := payload[:length] + fmt.Sprintf(",\n   \"signatures\": [{\"protected\":%q,\"signature\":\"x\"}]\n}", protected)
	right := digest.FromString(payload)
	for _, c := range []struct {
		name, content string
		want          error
	}{
		{"signed", signed, nil},
		{"changed", strings.Replace(signed, "app", "evil", 1), remote.ErrDigest},
		{"without signatures", payload, nil},
		{"other signatures", strings.Replace(payload, "1", "2", 1), remote.ErrDigest},
		{"longer than it is", strings.Replace(signed, protected, encode(`{"formatLength":99999,"formatTail":""}`), 1), remote.ErrDigest},
		{"negative", strings.Replace(signed, protected, encode(`{"formatLength":-1,"formatTail":""}`), 1), remote.ErrDigest},
		{"an image manifest", `{"schemaVersion":2,"config":{}}`, remote.ErrDigest},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := registrytest.New(t, nil)
			reg.ReplaceManifest(right, mediaType, []byte(c.content))
			reg.ReplaceManifest(digest.FromString(c.content), mediaType, []byte(c.content))
			reg.Tag("app", "latest", digest.FromString(c.content))
			reg.Inject(registrytest.Manifest, registrytest.Always(registrytest.Header(func(h http.Header) { h.Set("Docker-Content-Digest", right.String()) })))
			client := registry.New(fast())
			defer client.Close()
			doc, err := remote.OpenDocument(t.Context(), client.Repository(remote.Reference{Registry: reg.Host(), Repository: "app", Digest: right}))
			if !errors.Is(err, c.want) || err == nil && string(doc.Content) != c.content {
				t.Errorf("by digest: got %v and error %v, want %v", doc, err, c.want)
			}
			if doc, err = remote.OpenDocument(t.Context(), client.Repository(reference(reg))); err != nil || string(doc.Content) != c.content {
				t.Errorf("by tag: got %v and error %v, want the manifest", doc, err)
			}
		})
	}
}
