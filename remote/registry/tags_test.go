package registry_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
)

// A list of tags without an end is refused, once, and costs little.
func TestTagsWithoutEnd(t *testing.T) {
	tag := strings.Repeat("t", 100)
	for _, tc := range []struct {
		name, page, says string
		most             int
	}{
		{"large pages", `["` + tag + strings.Repeat(`","`+tag, 20_000) + `"]`, "more than 16 MiB", 8},
		{"short tags", `["a"` + strings.Repeat(`,"a"`, 100_000) + `]`, "more than 16 MiB", 11},
		{"no tags", `[` + strings.Repeat(`"",`, 100_000) + `""]`, "more than 16 MiB", 12},
		{"empty pages", `[]`, "more than 1000 pages", 1001},
		{"null pages", `null`, "more than 1000 pages", 1001},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothProtocols(t, registrytest.Options{}, func(t *testing.T, s *registrytest.Server, opts *registry.Options) {
				s.Inject(registrytest.Tags, registrytest.Always(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
					w.Header().Set("Link", fmt.Sprintf(`</v2/app/tags/list?last=%d>; rel="next"`, s.Count(registrytest.Tags)))
					fmt.Fprintf(w, `{"name":"app","tags":%s}`, tc.page)
				}))
				tags, err := open(t, s, opts).Tags(t.Context())
				if !errors.Is(err, remote.ErrUnavailable) || !strings.Contains(err.Error(), tc.says) || !strings.HasPrefix(err.Error(), "tags of ") || tags != nil {
					t.Errorf("got %d tags and error %v, want one that says %q", len(tags), err, tc.says)
				}
				if n := s.Count(registrytest.Tags); n > tc.most {
					t.Errorf("got %d requests, want at most %d", n, tc.most)
				}
			})
		})
	}
}

// As many tags as a list may have come all.
func TestTagsMany(t *testing.T) {
	s := registrytest.New(t, nil)
	tag := strings.Repeat("t", 84) // and 16 bytes beside
	page := `["` + tag + strings.Repeat(`","`+tag, 9_999) + `"]`
	s.Inject(registrytest.Tags, registrytest.Always(func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		if s.Count(registrytest.Tags) < 16 {
			w.Header().Set("Link", fmt.Sprintf(`</v2/app/tags/list?last=%d>; rel="next"`, s.Count(registrytest.Tags)))
		}
		fmt.Fprintf(w, `{"name":"app","tags":%s}`, page)
	}))
	tags, err := open(t, s, fast()).Tags(t.Context())
	if err != nil || len(tags) != 160_000 {
		t.Errorf("got %d tags and error %v, want 160000", len(tags), err)
	}
}

// TestFirstTags: for a hint a registry is asked once, whatever it says.
func TestFirstTags(t *testing.T) {
	for name, c := range map[string]struct {
		answer registrytest.Fault
		want   int // tags; -1: an error
	}{
		"a list": {func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			fmt.Fprint(w, `{"name":"app","tags":["a","b"]}`)
		}, 2},
		"more pages": {func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			w.Header().Set("Link", `</v2/app/tags/list?last=b>; rel="next"`)
			fmt.Fprint(w, `{"name":"app","tags":["a","b"]}`)
		}, 2},
		"none": {func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			fmt.Fprint(w, `{"name":"app","tags":null}`)
		}, 0},
		"not found": {registrytest.Status(404), -1},
		"broken":    {registrytest.Status(500), -1},
		"a page":    {registrytest.Page(), -1},
		"too much": {func(w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
			fmt.Fprintf(w, `{"name":"app","tags":["%s"]}`, strings.Repeat("x", 5<<20))
		}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			s := registrytest.New(t, nil)
			s.Inject(registrytest.Tags, registrytest.Always(c.answer))
			tags, err := open(t, s, fast()).FirstTags(t.Context())
			if (err != nil) != (c.want < 0) || err == nil && len(tags) != c.want {
				t.Errorf("got %d tags and error %v, want %d", len(tags), err, c.want)
			}
			if n := s.Count(registrytest.Tags); n != 1 {
				t.Errorf("%d requests, want one", n)
			}
		})
	}
}
