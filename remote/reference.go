package remote

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/printable"
)

// A Reference names an image in a registry. Exactly one of Tag and Digest is
// set.
type Reference struct {
	// Registry is the registry's name, with the port if one was given:
	// "docker.io", "quay.io", "localhost:5000".
	Registry string
	// Repository is the name within the registry: "library/fedora".
	Repository string
	Tag        string
	Digest     digest.Digest
}

// String returns the canonical form, which ParseReference takes back
// unchanged: "docker.io/library/fedora:latest".
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Name() + "@" + r.Digest.String()
	}
	return r.Name() + ":" + r.Tag
}

// Name returns the registry and repository, without tag and digest.
func (r Reference) Name() string {
	return r.Registry + "/" + r.Repository
}

// ParseRepository reads the name of a repository, which has neither tag nor digest, as
// ParseReference reads it. The error is ErrReference, wrapped.
func ParseRepository(s string) (Reference, error) {
	ref, err := ParseReference(s)
	if err != nil {
		return Reference{}, err
	}
	if strings.ContainsAny(s[strings.LastIndex(s, "/")+1:], ":@") {
		return Reference{}, fmt.Errorf("%w: %q names an image, and a repository has no tag and no digest", ErrReference, s)
	}
	return Reference{Registry: ref.Registry, Repository: ref.Repository}, nil
}

// ParseReference reads a reference as docker does: a name without a registry
// is in docker.io, one without a namespace in docker.io's library, a name
// with neither tag nor digest has the tag latest, and one with both loses
// the tag. Docker Hub's other host names are folded to docker.io. The error
// is ErrReference, wrapped, and quotes what is wrong.
func ParseReference(s string) (Reference, error) {
	text := s
	// The parser folds index.docker.io itself, but not the host that serves
	// Docker Hub's images.
	if rest, ok := strings.CutPrefix(s, "registry-1.docker.io/"); ok {
		text = "docker.io/" + rest
	}
	named, err := reference.ParseDockerRef(text)
	if err != nil {
		return Reference{}, fmt.Errorf("%w: %s", ErrReference, referenceFault(s, err))
	}
	r := Reference{Registry: reference.Domain(named), Repository: reference.Path(named)}
	if r.Registry == "" {
		// The parser takes what looks like a host, and cannot be one, for the
		// beginning of the repository, without any registry.
		host, _, _ := strings.Cut(s, "/")
		return Reference{}, fmt.Errorf("%w: %s is not the name of a host (in %s)", ErrReference, quote(host), quote(s))
	}
	switch n := named.(type) {
	case reference.Digested:
		r.Digest = n.Digest()
	case reference.Tagged:
		r.Tag = n.Tag()
	}
	return r, nil
}

// referenceFault says in words what is wrong with s, which the parser
// refused with err. The parser itself mostly says "invalid reference format".
func referenceFault(s string, err error) string {
	if strings.TrimSpace(s) == "" {
		return "the image's name is empty"
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		return fmt.Sprintf("%s is a URL; leave out %s: %s", quote(s), quote(scheme+"://"), typed(rest))
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }); i >= 0 {
		return fmt.Sprintf("%s has a space or control character after %s", quote(s), quote(s[:i]))
	}
	name, dgst, hasDigest := strings.Cut(s, "@")
	if hasDigest && digest.Digest(dgst).Validate() != nil {
		return fmt.Sprintf("%s is not a digest such as sha256:… with 64 hexadecimal digits (in %s)", quote(dgst), quote(s))
	}
	if lower := lowerName(s); lower != s {
		if _, e := reference.ParseDockerRef(lower); e == nil {
			return fmt.Sprintf("%s has capitals in the repository's name; try %s", quote(s), quote(lower))
		}
	}
	repository, tag, hasTag := cutTag(name)
	if hasTag {
		if _, e := reference.ParseNormalizedNamed(repository); e == nil {
			return fmt.Sprintf("%s is not a tag: up to 128 letters, digits, _, . and -, the first not . or - (in %s)", quote(tag), quote(s))
		}
	}
	if errors.Is(err, reference.ErrReferenceInvalidFormat) {
		return fmt.Sprintf("%s is not an image's name such as fedora:latest or quay.io/a/b", quote(s))
	}
	return fmt.Sprintf("%s: %v", quote(s), err)
}

// cutTag splits name at the colon of its tag; that of a port has a slash
// after it.
func cutTag(name string) (repository, tag string, found bool) {
	i := strings.LastIndexByte(name, ':')
	if i < 0 || strings.Contains(name[i:], "/") {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// lowerName puts all of s in lower case but a tag and digest.
func lowerName(s string) string {
	name, rest := s, ""
	if i := strings.IndexByte(s, '@'); i >= 0 {
		name, rest = s[:i], s[i:]
	}
	if repository, tag, ok := cutTag(name); ok {
		name, rest = repository, ":"+tag+rest
	}
	return strings.ToLower(name) + rest
}

// typed is quote for what somebody may copy into a shell: double quotes do there
// only if nothing in them means something to it.
func typed(s string) string {
	if printable.Word(s) == s {
		return quote(s)
	}
	const most = 200
	if len(s) > most {
		return printable.Word(printable.Cut(s, most)) + "…"
	}
	return printable.Word(s)
}

// quote quotes s for a message, and shortens what no one would read.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		return fmt.Sprintf("%.*q…", most, s)
	}
	return fmt.Sprintf("%q", s)
}

// Canonical returns a reference as docker completes it, "" if it is none.
func Canonical(name string) string {
	ref, err := ParseReference(name)
	if err != nil {
		return ""
	}
	return ref.String()
}

// IsShortFor tells whether short means an image in a file whose full name is full: as
// docker's short for it, as its tag alone, or as the end of its path.
func IsShortFor(short, full string) bool {
	if full == "" {
		return false
	}
	if c := Canonical(short); c != "" && c == Canonical(full) {
		return true
	}
	if !strings.ContainsAny(short, "/:@") && strings.HasSuffix(full, ":"+short) {
		return true
	}
	return strings.HasSuffix(full, "/"+short) || strings.HasSuffix(full, "/"+short+":latest")
}
