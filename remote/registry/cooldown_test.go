package registry

import (
	"errors"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
)

func testEndpoint(host, repository string) *endpoint {
	return &endpoint{Site: hosts.Canonical(remote.Reference{Registry: host, Repository: repository, Tag: "x"})}
}

// What concerns a repository alone leaves the others of the server alone.
func TestCooldowns(t *testing.T) {
	a, b, other := testEndpoint("m.example", "a"), testEndpoint("m.example", "b"), testEndpoint("n.example", "a")
	for _, tc := range []struct {
		name       string
		fault      *fault
		a, b       bool // asked afterwards
		desperate  bool // a is, by who has no other choice
		longEnough bool // for its rest
	}{
		{name: "has none", fault: &fault{class: remote.ErrNotFound}, b: true},
		{name: "refuses", fault: &fault{class: remote.ErrUnauthorized}, b: true},
		{name: "does not answer", fault: &fault{class: remote.ErrUnavailable}, desperate: true},
		{name: "no TLS", fault: &fault{class: ErrTLS}, desperate: true},
		{name: "wrong content", fault: &fault{class: remote.ErrDigest}},
		{name: "long ago", fault: &fault{class: remote.ErrDigest}, a: true, longEnough: true},
	} {
		s := &cooldowns{opts: (&Options{MirrorCooldown: time.Hour}).withDefaults(), byPlace: make(map[string]*cooldown)}
		if tc.longEnough {
			s.opts.MirrorCooldown = -time.Hour
		}
		before := time.Now()
		s.begin(a, tc.fault)
		// An answer to what was asked before says nothing.
		s.end(a, before)
		if !tc.longEnough {
			if got := s.admit(a, true); got != tc.desperate {
				t.Errorf("%s: in need: got %t, want %t", tc.name, got, tc.desperate)
			}
		}
		if got := s.admit(a, false); got != tc.a {
			t.Errorf("%s: got %t, want %t", tc.name, got, tc.a)
		}
		// Of several readers one finds out.
		if got := s.admit(b, false); got != tc.b {
			t.Errorf("%s: another repository: got %t, want %t", tc.name, got, tc.b)
		}
		if !s.admit(other, false) {
			t.Errorf("%s: another server rests", tc.name)
		}
		if f := s.explain(&fault{class: remote.ErrNotFound}, []*endpoint{a, other}, b); !errors.Is(f, remote.ErrNotFound) || f.reason() == "" {
			t.Errorf("%s: the reason is not told: %v", tc.name, f)
		}
		s.end(a, time.Now())
		if !s.admit(a, false) || !s.admit(b, false) {
			t.Errorf("%s: it rests after it answered", tc.name)
		}
	}
}

func TestServings(t *testing.T) {
	a, b := testEndpoint("a.example", "x"), testEndpoint("b.example", "x")
	var s servings
	s.note(0, 100, a)
	s.note(100, 100, a)
	s.note(150, 10, b)
	s.note(300, 0, b)
	for _, tc := range []struct {
		off, n int64
		from   *endpoint
		all    bool
	}{
		{0, 100, a, true}, {50, 100, a, true}, {0, 150, a, true}, {150, 10, b, true}, {155, 10, b, false},
		{160, 40, a, true}, {160, 41, a, false}, {200, 1, nil, false}, {300, 1, nil, false}, {0, 0, nil, false}, {0, -1, nil, false},
	} {
		if from, all := s.at(tc.off, tc.n); from != tc.from || all != tc.all {
			t.Errorf("%d bytes from %d: got %v and %t, want %v and %t", tc.n, tc.off, from, all, tc.from, tc.all)
		}
	}
	for range 2 * maxServings {
		s.note(1000, 1, b)
	}
	if from, _ := s.at(0, 1); from != nil {
		t.Error("what was long ago is remembered")
	}
	if from, all := s.at(1000, 1); from != b || !all {
		t.Error("what was just now is not remembered")
	}
}
