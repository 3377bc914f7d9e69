package hosts

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

// A podmanQuestion is what testdata/podmanconf is asked.
type podmanQuestion struct {
	Files, Names, Short []string
}

// A confMaker makes up registries.conf files and names to look up in them.
type confMaker struct{ *rand.Rand }

func (g *confMaker) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g *confMaker) seldom() bool { return g.IntN(12) == 0 }

func (g *confMaker) host() string {
	if g.seldom() {
		return g.pick("EXAMPLE.com", "a.Example.com", "index.docker.io", "registry-1.docker.io", "a.example.com.example.com", "example.com.evil.test", "xexample.com", "[::1]:5000")
	}
	return g.pick("example.com", "a.example.com", "b.a.example.com", "example.com:5000", "a.example.com:5000", "docker.io", "quay.io", "localhost", "localhost:5000", "127.0.0.1", "127.0.0.1:5666", "m.test")
}

func (g *confMaker) path() string {
	return g.pick("/x", "/a/x", "/a/b", "/a", "/library/x", "/a/b/c", "/ab")
}

func (g *confMaker) prefix() string {
	switch g.IntN(10) {
	case 0, 1, 2:
		return g.host()
	case 3, 4:
		return g.pick("*.example.com", "*.a.example.com", "*.com", "*.io", "*.docker.io", "*.test", "*.EXAMPLE.com", "*.0.0.1")
	case 5:
		if g.seldom() {
			return g.pick("*example.com", "*", "*.", "example.com/*", "*.example.com/a", "*.example.com:5000", "/", "https://example.com", "ftp://example.com", "a.*.com")
		}
		return g.host() + "/"
	case 6:
		return g.host() + g.path() + g.pick(":v1", "", "/", "@sha256:"+strings.Repeat("a", 64))
	}
	return g.host() + g.path()
}

func (g *confMaker) location() string {
	if g.seldom() {
		return g.pick("", "/", "http://m.test", "m.test:0", "docker.io/library", "registry-1.docker.io", "m_.test", "M.test/sub", "m.test/SUB", "hub")
	}
	return g.pick("m.test", "m.test/sub", "m.test:5000", "m.test/", g.host(), g.host()+g.path())
}

// table makes a [[registry]]. What is missing in most is made up for: files that
// are refused tell little.
func (g *confMaker) table() string {
	var b strings.Builder
	b.WriteString("[[registry]]\n")
	hasPrefix := g.IntN(3) > 0
	if hasPrefix {
		fmt.Fprintf(&b, "prefix = %q\n", g.prefix())
	}
	switch {
	case !hasPrefix && g.IntN(20) > 0:
		fmt.Fprintf(&b, "location = %q\n", g.pick(g.host(), g.host()+g.path()))
	case g.IntN(10) > 0:
		fmt.Fprintf(&b, "location = %q\n", g.location())
	}
	if g.IntN(4) == 0 {
		fmt.Fprintf(&b, "blocked = %s\n", g.pick("true", "true", "false"))
	}
	if g.IntN(5) == 0 {
		fmt.Fprintf(&b, "insecure = %s\n", g.pick("true", "false"))
	}
	byDigest := g.seldom()
	if byDigest {
		b.WriteString("mirror-by-digest-only = true\n")
	}
	if g.IntN(6) == 0 {
		b.WriteString(g.pick("imgfs.index-repo = \"r.example/indexes\"\n", "imgfs.index-repo = [\"r.example/a\", \"r.example/b\"]\n"))
	}
	if g.IntN(60) == 0 {
		b.WriteString(g.pick("pull-from-mirror = \"all\"\n", "Blocked = true\n", "BLOCKED = true\n", "blocked = \"true\"\n", "unknown = 1\n"))
	}
	for range g.IntN(4) / 2 * (1 + g.IntN(2)) {
		fmt.Fprintf(&b, "[[registry.mirror]]\nlocation = %q\n", g.location())
		if g.IntN(3) == 0 && (!byDigest || g.seldom()) {
			fmt.Fprintf(&b, "pull-from-mirror = %q\n", g.pick("all", "digest-only", "tag-only", "digest-only", "tag-only", ""))
		}
		if g.IntN(4) == 0 {
			b.WriteString("insecure = true\n")
		}
	}
	return b.String()
}

func (g *confMaker) file(drop bool) string {
	if g.IntN(25) == 0 && (!drop || g.seldom()) {
		return g.version1()
	}
	var b strings.Builder
	if g.IntN(3) == 0 {
		fmt.Fprintf(&b, "unqualified-search-registries = %s\n", g.pick(`["docker.io"]`, `["s.example"]`, `["s.example/"]`, `["s.example", "docker.io"]`, `[]`, `["registry-1.docker.io"]`, `["localhost:5000"]`, `["a_b"]`, `["Hub"]`, `["s.example/x"]`))
	}
	if g.IntN(4) == 0 {
		fmt.Fprintf(&b, "short-name-mode = %q\n", g.pick("disabled", "enforcing", "permissive", "permissive", "", "x"))
	}
	for range g.IntN(4) {
		b.WriteString(g.table())
	}
	if g.IntN(3) == 0 {
		b.WriteString("[aliases]\n")
		for i := range 1 + g.IntN(3) {
			name := []string{"fedora", "a/b", g.pick("Big/x", "x:v1", "localhost/x", "c", "c", "c")}[i]
			target := g.pick("r.example/fedora", "docker.io/fedora", "localhost/q", "quay.io/a/b", "", "registry-1.docker.io/x")
			if g.seldom() {
				target = g.pick("nowhere", "r.example/x:v1", "r.example", "R.example/X", "index.docker.io/x")
			}
			fmt.Fprintf(&b, "%q = %q\n", name, target)
		}
	}
	return b.String()
}

func (g *confMaker) version1() string {
	var b strings.Builder
	for _, kind := range []string{"search", "insecure", "block"} {
		if g.IntN(2) == 0 {
			fmt.Fprintf(&b, "[registries.%s]\nregistries = [%q, %q]\n", kind, g.host(), g.host())
		}
	}
	if g.seldom() {
		b.WriteString("[[registry]]\nlocation = \"m.test\"\n")
	}
	return b.String()
}

func (g *confMaker) question() *podmanQuestion {
	q := &podmanQuestion{Files: []string{g.file(false)}}
	for range g.IntN(3) {
		q.Files = append(q.Files, g.file(true))
	}
	for range 400 {
		q.Names = append(q.Names, g.host()+g.path()+g.pick("", ":v1", ":v2", "@sha256:"+strings.Repeat("a", 64), ":v1@sha256:"+strings.Repeat("a", 64)))
	}
	for range 6 {
		q.Short = append(q.Short, g.pick("fedora", "a/b", "c", "x", "library/fedora", "a/b/c", "Big/x")+g.pick("", ":v1", "@sha256:"+strings.Repeat("a", 64)))
	}
	return q
}

// nonsense reports whether a file has what podman passes over although it can
// mean nothing: a * elsewhere, a URL, a prefix of slashes.
func (q *podmanQuestion) nonsense() bool {
	return regexp.MustCompile(`(?m)^(prefix|location) = "(\*[^.].*|\*|\*\.|.+\*.*|.*://.*|/)"$`).MatchString(strings.Join(q.Files, "\n"))
}

// repeated reports whether a file has two tables with one prefix.
func (q *podmanQuestion) repeated() bool {
	for _, text := range q.Files {
		seen := map[string]bool{}
		for _, table := range strings.Split(text, "[[registry]]")[1:] {
			table, _, _ = strings.Cut(table, "[[registry.mirror]]")
			m := regexp.MustCompile(`(?m)^prefix = "(.*)"$`).FindStringSubmatch(table)
			if m == nil {
				m = regexp.MustCompile(`(?m)^location = "(.*)"$`).FindStringSubmatch(table)
			}
			if m == nil {
				continue
			}
			prefix := strings.TrimRight(m[1], "/")
			if seen[prefix] {
				return true
			}
			seen[prefix] = true
		}
	}
	return false
}
