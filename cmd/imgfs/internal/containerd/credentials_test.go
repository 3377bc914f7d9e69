package containerd

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/hosts"
)

// user is a credential.
func user(name string) hosts.Credential { return hosts.Credential{User: name, Password: "secret"} }

// has returns whose credential there is for a repository.
func has(s *Credentials, registry, name string) string {
	c, err := s.LookUp(context.Background(), registry, name)
	if err != nil {
		return err.Error()
	}
	return c.User
}

// TestCredentials follows pulls of one repository: what is said in each step, and whose
// credential it has then.
func TestCredentials(t *testing.T) {
	for name, steps := range map[string][]string{
		"a pull":                        {"begin a", "a", "end a", "a"},
		"a pull that fails":             {"begin a", "a", "fail a", ""},
		"a wrong one beside a good one": {"begin a", "end a", "begin b", "a", "fail b", "a"},
		"a new one":                     {"begin a", "end a", "begin b", "a", "end b", "b"},
		// A token has expired, and the pull waits for layers that are being read.
		"a new one that brings the manifest":             {"begin a", "end a", "begin b", "reached", "b", "fail b", "b"},
		"a wrong one while another brings the manifest":  {"begin a", "end a", "begin b", "begin c", "reached", "a", "fail c", "a", "end b", "b"},
		"two pulls with one credential":                  {"begin a", "begin a", "reached", "a", "end a", "end a", "a"},
		"no pull":                                        {"reached", ""},
		"a good one that another took the place of":      {"begin a", "begin b", "b", "end b", "b", "end a", "a"},
		"the latest one while none is known to be right": {"begin a", "begin b", "b", "fail b", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			var s Credentials
			done := map[string][]func(bool){}
			for i, step := range steps {
				what, who, _ := strings.Cut(step, " ")
				switch what {
				case "begin":
					done[who] = append(done[who], s.Pulling("reg.example/team/app:v1", user(who)))
				case "end", "fail":
					done[who][0](what == "end")
					done[who] = done[who][1:]
				case "reached":
					s.Reached("reg.example/team/app@sha256:" + strings.Repeat("0", 64))
				default:
					if got := has(&s, "reg.example", "team/app"); got != what {
						t.Fatalf("after %q: that of %q, want %q", steps[:i], got, what)
					}
				}
			}
			for _, other := range [][2]string{{"reg.example", "team/other"}, {"reg.example", "team"}, {"other.example", "team/app"}, {"", ""}} {
				if got := has(&s, other[0], other[1]); got != "" {
					t.Errorf("%q has that of %q", other, got)
				}
			}
		})
	}
}

// TestCredentialsBounds: those that are used stay, and neither many nor long ones take memory
// without a bound.
func TestCredentialsBounds(t *testing.T) {
	var s Credentials
	s.Pulling("reg.example/first:v1", user("first"))(true)
	for i := range 3 * maxRepositories {
		s.Pulling(fmt.Sprintf("reg.example/app%d:v1", i), user("x"))(true)
		if i%100 == 0 && has(&s, "reg.example", "first") != "first" {
			t.Fatalf("what is used was forgotten after %d others", i)
		}
	}
	if len(s.all) != maxRepositories {
		t.Errorf("%d repositories are kept, want %d", len(s.all), maxRepositories)
	}
	for range 100 * maxPulls {
		s.Pulling("reg.example/many:v1", user("x"))
	}
	if n := len(s.all[repository{"reg.example", "many"}].tried); n != maxPulls {
		t.Errorf("%d pulls are followed, want %d", n, maxPulls)
	}
	long := hosts.Credential{User: "u", Password: strings.Repeat("x", maxCredential)}
	s.Pulling("reg.example/long:v1", long)(true)
	for _, image := range []string{"", "reg.example/UPPER:v1", "reg.example/a b", "sha256:"} {
		s.Pulling(image, user("x"))(true)
		s.Reached(image)
	}
	s.Pulling("reg.example/public:v1", hosts.Credential{})(true)
	for _, name := range []string{"long", "public"} {
		if got := has(&s, "reg.example", name); got != "" {
			t.Errorf("%s has that of %q", name, got)
		}
	}
	// A pull that ends after its repository was forgotten, for others.
	done, bad := s.Pulling("reg.example/late:v1", user("late")), s.Pulling("reg.example/bad:v1", user("bad"))
	for i := range maxRepositories {
		s.Pulling(fmt.Sprintf("reg.example/more%d:v1", i), user("x"))(true)
	}
	done(true)
	bad(false)
	if got := has(&s, "reg.example", "late") + has(&s, "reg.example", "bad"); got != "late" {
		t.Errorf("those of %q, want the one of late", got)
	}
}
