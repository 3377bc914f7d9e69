package hosts

import (
	"errors"
	"strings"
	"testing"
)

// TestJoinBroken: all that was wrong is told in one line, which is harmless.
func TestJoinBroken(t *testing.T) {
	quiet := &BrokenError{Reasons: []error{errors.New("quiet")}}
	loud := &BrokenError{Reasons: []error{errors.New("loud"), errors.New("twice")}, Loud: true}
	odd := errors.New("odd\x1b[m")
	for _, tc := range []struct {
		name string
		all  []error
		text string
		loud bool
	}{
		{"nothing", nil, "", false},
		{"twice nothing", []error{nil, nil}, "", false},
		{"quiet", []error{nil, quiet}, "quiet", false},
		{"both", []error{loud, quiet}, "loud; twice; quiet", true},
		{"any error", []error{quiet, odd}, "quiet; odd", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := JoinBroken(tc.all...)
			var broken *BrokenError
			if errors.As(err, &broken) != (tc.text != "") || (err != nil) != (tc.text != "") {
				t.Fatalf("error %v, want %q", err, tc.text)
			}
			if broken != nil && (!strings.HasPrefix(broken.Error(), tc.text) || broken.Loud != tc.loud || strings.Contains(broken.Error(), "\x1b")) {
				t.Errorf("error %q, loud %v, want %q, %v", broken, broken.Loud, tc.text, tc.loud)
			}
			for _, want := range tc.all {
				if b := (*BrokenError)(nil); want != nil && !errors.As(want, &b) && !errors.Is(err, want) {
					t.Errorf("the cause is lost: %v", want)
				}
			}
		})
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
