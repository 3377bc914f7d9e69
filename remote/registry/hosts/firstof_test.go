package hosts

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestFirstOf: the first one that has a credential is used, and all that was wrong before is
// told in one line.
func TestFirstOf(t *testing.T) {
	has := func(user string) CredentialFunc {
		return func(context.Context, string, string) (Credential, error) { return Credential{User: user}, nil }
	}
	fails := func(err error) CredentialFunc {
		return func(context.Context, string, string) (Credential, error) { return Credential{}, err }
	}
	none := fails(nil)
	quiet := &BrokenError{Reasons: []error{errors.New("quiet")}}
	loud := &BrokenError{Reasons: []error{errors.New("loud"), errors.New("twice")}, Loud: true}
	odd := errors.New("odd\x1b[m")
	for _, tc := range []struct {
		name string
		all  []CredentialFunc
		user string
		text string
		loud bool
	}{
		{"nobody", nil, "", "", false},
		{"none", []CredentialFunc{none, none}, "", "", false},
		{"first", []CredentialFunc{has("a"), has("b"), fails(loud)}, "a", "", false},
		{"second", []CredentialFunc{none, has("b")}, "b", "", false},
		{"quiet", []CredentialFunc{fails(quiet), has("b")}, "b", "quiet", false},
		{"both", []CredentialFunc{fails(loud), fails(quiet)}, "", "loud; twice; quiet", true},
		{"any error", []CredentialFunc{fails(quiet), fails(odd)}, "", "quiet; odd", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := FirstOf(tc.all...)(t.Context(), "r", "n")
			var broken *BrokenError
			if errors.As(err, &broken) != (tc.text != "") || (err != nil) != (tc.text != "") {
				t.Fatalf("error %v, want %q", err, tc.text)
			}
			if c.User != tc.user {
				t.Errorf("%v, want the one of %q", c, tc.user)
			}
			if broken != nil && (!strings.HasPrefix(broken.Error(), tc.text) || broken.Loud != tc.loud || strings.Contains(broken.Error(), "\x1b")) {
				t.Errorf("error %q, loud %v, want %q, %v", broken, broken.Loud, tc.text, tc.loud)
			}
		})
	}
	if _, err := FirstOf(fails(odd))(t.Context(), "r", "n"); !errors.Is(err, odd) {
		t.Errorf("the cause is lost: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, _ := FirstOf(none, has("b"))(ctx, "r", "n"); !c.Empty() {
		t.Errorf("after ctx has ended another one is asked: %v", c)
	}
}

// TestIsServer: a registry has several names in files.
func TestIsServer(t *testing.T) {
	for _, tc := range []struct {
		address, registry string
		want              bool
	}{
		{"https://index.docker.io/v1/", "docker.io", true},
		{"registry-1.docker.io", "docker.io", true},
		{"quay.io", "quay.io", true},
		{"http://127.0.0.1:5000", "127.0.0.1:5000", true},
		{"QUAY.io/team", "quay.io", true},
		{"quay.io", "docker.io", false},
		{"127.0.0.1:5001", "127.0.0.1:5000", false},
		{"", "quay.io", false},
	} {
		if got := IsServer(tc.address, tc.registry); got != tc.want {
			t.Errorf("%q, %q: %v, want %v", tc.address, tc.registry, got, tc.want)
		}
	}
}
