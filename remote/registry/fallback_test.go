package registry_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// locked returns a server with the image app:latest that lets only joe in.
func locked(t *testing.T, login registrytest.Login) *registrytest.Server {
	t.Helper()
	s := registrytest.New(t, &registrytest.Options{Login: login, User: "joe", Password: "secret"})
	s.Tag("app", "latest", s.PutManifest(ocispec.MediaTypeImageManifest, []byte(testManifest)).Digest)
	return s
}

// TestFallback: the second credential is used where the first one is missing or refused, by the
// registry or by its token server, and is not asked for where the first one is good.
func TestFallback(t *testing.T) {
	good, bad, none := hosts.Credential{User: "joe", Password: "secret", Origin: "GOOD"}, hosts.Credential{User: "eve", Password: "wrong", Origin: "BAD"}, hosts.Credential{}
	worse, refresh := hosts.Credential{User: "eve", Password: "worse", Origin: "WORSE"}, hosts.Credential{IdentityToken: "refresh", Origin: "TOKEN"}
	// Tokens are for everybody, and only joe's opens anything.
	lenient := func(status int) *registrytest.Server {
		s := guarded(t, nil, nil, &doorkeeper{status: status, challenges: []string{bearerHere}, taken: []string{"Bearer of-joe"}})
		giveTokens(s, func(r *http.Request) (int, string) {
			user, _, _ := r.BasicAuth()
			return http.StatusOK, `{"token": "of-` + user + `"}`
		})
		return s
	}
	servers := map[string]func() *registrytest.Server{
		"basic":          func() *registrytest.Server { return locked(t, registrytest.Basic) },
		"bearer":         func() *registrytest.Server { return locked(t, registrytest.Bearer) },
		"tokens for 401": func() *registrytest.Server { return lenient(http.StatusUnauthorized) },
		"tokens for 403": func() *registrytest.Server { return lenient(http.StatusForbidden) },
	}
	for name, server := range servers {
		for _, tc := range []struct {
			name          string
			first, second hosts.Credential
			asked, ok     bool
			says          string
		}{
			{"good first", good, bad, false, true, ""},
			{"none first", none, good, true, true, ""},
			{"bad first", bad, good, true, true, ""},
			{"both bad", bad, worse, true, false, "WORSE"},
			{"no second", bad, none, true, false, "BAD"},
			{"neither", none, none, true, false, ""},
			{"token first", refresh, good, true, true, ""},
		} {
			t.Run(name+" "+tc.name, func(t *testing.T) {
				s := server()
				opts := fast()
				var asked atomic.Int64
				opts.Credential = knows(tc.first, nil)
				opts.Fallback = func(context.Context, string, string) (hosts.Credential, error) {
					asked.Add(1)
					return tc.second, nil
				}
				r := open(t, s, opts)
				_, err := r.Resolve(t.Context())
				if (err == nil) != tc.ok || err != nil && (!errors.Is(err, remote.ErrUnauthorized) || !strings.Contains(err.Error(), tc.says)) {
					t.Errorf("error %v, want one of %q", err, tc.says)
				}
				if (asked.Load() > 0) != tc.asked {
					t.Errorf("the second one was asked for %d times", asked.Load())
				}
				if n := s.Count(); n > 16 {
					t.Errorf("%d requests", n)
				}
				if !tc.ok {
					return
				}
				s.Forget()
				if _, err := r.Resolve(t.Context()); err != nil || s.Count() != 1 {
					t.Errorf("once more: error %v, %d requests, want one", err, s.Count())
				}
			})
		}
	}
}

// TestFallbackTrouble: what is wrong with either place is told when nothing helps.
func TestFallbackTrouble(t *testing.T) {
	s := locked(t, registrytest.Basic)
	opts := fast()
	opts.Credential = knows(hosts.Credential{}, &hosts.BrokenError{Reasons: []error{errors.New("FIRST is broken")}})
	opts.Fallback = knows(hosts.Credential{}, &hosts.BrokenError{Reasons: []error{errors.New("SECOND is broken")}})
	_, err := open(t, s, opts).Resolve(t.Context())
	if err == nil || !strings.Contains(err.Error(), "FIRST is broken; SECOND is broken") || !errors.Is(err, remote.ErrUnauthorized) {
		t.Errorf("error %v", err)
	}
}
