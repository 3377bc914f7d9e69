package containerd

import (
	"encoding/base64"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/hosts"
	"google.golang.org/protobuf/encoding/protowire"
)

// texts writes a message with text fields, in the order of their numbers.
func texts(fields ...string) (message []byte) {
	for i, text := range fields {
		if text != "" {
			message = protowire.AppendTag(message, protowire.Number(i+1), protowire.BytesType)
			message = protowire.AppendString(message, text)
		}
	}
	return message
}

// pullOf writes a PullImageRequest as kubelet does, with fields that are not read.
func pullOf(image string, auth ...string) []byte {
	spec := protowire.AppendVarint(protowire.AppendTag(texts(image), 99, protowire.VarintType), 7)
	m := protowire.AppendBytes(protowire.AppendTag(nil, pullImage, protowire.BytesType), spec)
	if len(auth) > 0 {
		m = protowire.AppendBytes(protowire.AppendTag(m, pullAuth, protowire.BytesType), texts(auth...))
	}
	m = protowire.AppendBytes(protowire.AppendTag(m, 3, protowire.BytesType), texts("", "log"))
	return protowire.AppendFixed64(protowire.AppendTag(m, 50, protowire.Fixed64Type), 1)
}

// TestParsePull: of what a client sends that is used which containerd uses.
func TestParsePull(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("joe:se:cret\x00\x00"))
	for _, tc := range []struct {
		name, image string
		auth        []string // username, password, auth, server_address, identity_token, registry_token
		want        hosts.Credential
	}{
		{"none", "reg.example/app", nil, hosts.Credential{}},
		{"empty", "reg.example/app", []string{""}, hosts.Credential{}},
		{"user", "reg.example/app", []string{"joe", "secret"}, hosts.Credential{User: "joe", Password: "secret"}},
		{"auth", "reg.example/app", []string{"", "", auth}, hosts.Credential{User: "joe", Password: "se:cret"}},
		{"identity token", "reg.example/app", []string{"", "", auth, "", "token"}, hosts.Credential{IdentityToken: "token"}},
		{"registry token", "reg.example/app", []string{"", "", "", "", "", "token"}, hosts.Credential{RegistryToken: "token"}},
		{"all", "reg.example/app", []string{"joe", "secret", auth, "", "token", "token"}, hosts.Credential{User: "joe", Password: "secret"}},
		{"its server", "app", []string{"joe", "secret", "", "https://index.docker.io/v1/"}, hosts.Credential{User: "joe", Password: "secret"}},
		{"another server", "app", []string{"joe", "secret", "", "https://reg.example"}, hosts.Credential{}},
		{"server of no image", "", []string{"joe", "secret", "", "https://reg.example"}, hosts.Credential{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pull, err := parsePull(pullOf(tc.image, tc.auth...))
			if err != nil || pull.image != tc.image {
				t.Fatalf("image %q, %v", pull.image, err)
			}
			if c, _ := pull.credential(); c != tc.want {
				t.Errorf("%v, want %v", c, tc.want)
			}
		})
	}
	pull, err := parsePull(pullOf("reg.example/app", "", "", "secret"))
	if c, e := pull.credential(); err != nil || e == nil || !c.Empty() {
		t.Errorf("of what is no base64: %v, %v, %v", c, err, e)
	}
}

// FuzzParsePull: what cannot be read is an error, and what was read is read again the same.
func FuzzParsePull(f *testing.F) {
	f.Add(pullOf("reg.example/app", "joe", "secret"))
	f.Add(pullOf("app", "", "", "am9lOnNlY3JldA==", "https://index.docker.io/v1/"))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{0x0b, 0x0b, 0x0c, 0x0c})
	f.Fuzz(func(t *testing.T, message []byte) {
		pull, err := parsePull(message)
		if err != nil {
			if pull != (pullRequest{}) {
				t.Errorf("beside an error: %v", pull)
			}
			return
		}
		a := pull.auth
		again, err := parsePull(pullOf(pull.image, a.username, a.password, a.auth, a.serverAddress, a.identityToken, a.registryToken))
		if err != nil || again != pull {
			t.Errorf("%q, %v, again %q", pull, err, again)
		}
		_, _ = pull.credential() // an error or none: it must come back
	})
}
