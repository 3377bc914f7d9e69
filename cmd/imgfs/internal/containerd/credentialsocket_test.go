package containerd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/hosts"
)

// TestCredentialServer: whoever may use the socket gets the credential of one repository,
// byte for byte, from the server that is there now.
func TestCredentialServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "below", "s")
	ask := AskAt(path)
	var broken *hosts.BrokenError
	if c, err := ask(t.Context(), "reg.example", "app"); !c.Empty() || !errors.As(err, &broken) || broken.Loud {
		t.Errorf("without a server: %v, %v", c, err)
	}
	for _, want := range []hosts.Credential{
		{User: "joe", Password: "p\xe4ss\x00\"\n"},
		{IdentityToken: strings.Repeat("i", maxCredential)},
		{RegistryToken: "token"},
	} {
		var kept Credentials
		kept.Pulling("reg.example/app:v1", want)(true)
		s, err := ServeCredentials(t.Context(), path, &kept)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		want.Origin = "the image's last pull"
		if c, err := ask(t.Context(), "reg.example", "app"); c != want || err != nil {
			t.Errorf("%q, %v, want %q", c, err, want)
		}
		if c, err := ask(t.Context(), "reg.example", "other"); !c.Empty() || err != nil {
			t.Errorf("of another repository: %v, %v", c, err)
		}
		junk, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := junk.Write([]byte("junk\n")); err != nil {
			t.Error(err)
		}
		if n, err := junk.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("junk is answered: %d, %v", n, err)
		}
		junk.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// TestAskSilent: a server that does not answer is waited for as long as the asker wants.
func TestAskSilent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := ListenAt(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if c, err := AskAt(path)(ctx, "reg.example", "app"); !c.Empty() || err == nil || time.Since(begun) > talkLimit {
		t.Errorf("%v, %v after %v", c, err, time.Since(begun))
	}
}
