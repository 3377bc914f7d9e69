package remote

import (
	"cmp"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote/printable"
)

// maxPlatformsNamed bounds the list in an error.
const maxPlatformsNamed = 32

// A PlatformError is ErrPlatform, with what there is instead.
type PlatformError struct {
	// Asked is the platform that was wanted, as Options take it.
	Asked string
	// There holds the platforms that could be chosen, each once and as written by
	// strangers; it is empty if there is none.
	There []string
	// Instead says what there is in place of images, if There is empty.
	Instead string
}

// Error implements error. It has up to 32 platforms, harmless to a terminal.
func (e *PlatformError) Error() string {
	if len(e.There) == 0 {
		return fmt.Sprintf("%v: %s; there is no image for any platform%s", ErrPlatform, e.Asked, e.Instead)
	}
	var names []string
	for _, name := range e.There[:min(len(e.There), maxPlatformsNamed)] {
		names = append(names, shown(name))
	}
	if more := len(e.There) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("%v: %s; there is %s", ErrPlatform, e.Asked, strings.Join(names, ", "))
}

// Is makes the error ErrPlatform.
func (e *PlatformError) Is(target error) bool { return target == ErrPlatform }

// shown quotes s if it could do something to a terminal, and shortens it.
func shown(s string) string {
	if !printable.Harmless(s) || len(s) > 100 {
		return quote(s)
	}
	return s
}

// A wish is the platform that the user wants.
type wish struct {
	// spec is normalized.
	spec ocispec.Platform
	// runs decides by system, architecture and variant, the best first: what
	// comes later runs on the platform as well.
	runs []platforms.MatchComparer
	// asked tells the user's own choice from the host's platform.
	asked bool
}

// osOptions is what containerd has in parentheses behind a system: a version,
// features that begin with a plus sign each, or both.
var osOptions = regexp.MustCompile(`^([A-Za-z0-9_-]+)\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\)(/.*)?$`)

// parseWish reads a platform as containerd does: "linux/arm/v7", "arm64",
// "windows(10.0.20348)/amd64", "windows(10.0.17763+win32k)/amd64", or "" for the
// host's.
func parseWish(platform string) (wish, error) {
	spec := platforms.DefaultSpec()
	if platform != "" {
		var err error
		if spec, err = ParsePlatform(platform); err != nil {
			return wish{}, err
		}
	}
	spec = platforms.Normalize(spec)
	w := wish{spec: spec, runs: []platforms.MatchComparer{platforms.Only(spec)}, asked: platform != ""}
	if spec.Architecture == "arm64" && spec.Variant != "" {
		// Every later version runs what the first one does.
		base := spec
		base.Variant = ""
		w.runs = append(w.runs, platforms.Only(base))
	}
	return w, nil
}

// HostPlatform returns the platform of this machine, which "" means to Open.
func HostPlatform() ocispec.Platform { return platforms.Normalize(platforms.DefaultSpec()) }

// ParsePlatform reads a platform as Open takes it, but not "". The error is
// ErrPlatform.
func ParsePlatform(platform string) (ocispec.Platform, error) {
	p, err := parsePlatform(platform)
	if err != nil {
		return ocispec.Platform{}, fmt.Errorf("%w: %s is not one such as linux/arm64, linux/arm/v7 or windows(10.0.20348)/amd64", ErrPlatform, quote(platform))
	}
	return platforms.Normalize(p), nil
}

// parsePlatform reads the options of the system, which platforms.Parse does not
// know or does not decode.
func parsePlatform(s string) (ocispec.Platform, error) {
	m := osOptions.FindStringSubmatch(s)
	if m == nil {
		return platforms.Parse(s)
	}
	p, err := platforms.Parse(m[1] + m[4])
	if err != nil {
		return p, err
	}
	if p.OSVersion, err = url.PathUnescape(m[2]); err != nil {
		return p, err
	}
	for _, f := range strings.Split(m[3], "+")[1:] {
		if f, err = url.PathUnescape(f); err != nil {
			return p, err
		}
		p.OSFeatures = append(p.OSFeatures, f)
	}
	return p, nil
}

// escapeOption writes a version or a feature so that parsePlatform reads it.
var escapeOption = strings.NewReplacer("%", "%25", "+", "%2B", "(", "%28", ")", "%29", "/", "%2F")

// formatPlatform writes a platform as containerd does and parseWish reads it,
// with the version and the features of its system.
func formatPlatform(p ocispec.Platform) string {
	p = platforms.Normalize(p)
	options := escapeOption.Replace(p.OSVersion)
	for _, f := range sortedSet(p.OSFeatures) {
		options += "+" + escapeOption.Replace(f)
	}
	if options != "" {
		options = "(" + options + ")"
	}
	return path.Join(p.OS+options, p.Architecture, p.Variant)
}

// sortedSet returns the elements of s that are not empty, sorted, each once.
func sortedSet(s []string) []string {
	s = slices.DeleteFunc(slices.Clone(s), func(e string) bool { return e == "" })
	slices.Sort(s)
	return slices.Compact(s)
}

// match tells whether an image for p is what is wanted. All that the wish says
// must hold of p: its system's version in as many components as are given, and
// its features. p may say more, except for features that imgfs does not know:
// image-index.md has them mandatory, and what they do to the layers is theirs.
func (w wish) match(p ocispec.Platform) bool {
	if w.rank(p) < 0 || !versionFits(p.OSVersion, w.spec.OSVersion) {
		return false
	}
	for _, f := range w.spec.OSFeatures {
		if !slices.Contains(p.OSFeatures, f) {
			return false
		}
	}
	return !slices.ContainsFunc(p.OSFeatures, func(f string) bool {
		return f != "" && !slices.Contains(w.spec.OSFeatures, f) && !(f == "win32k" && w.spec.OS == "windows")
	})
}

// unsaid tells whether p, which does not match, could if it said more: the
// version of its system may be in the image's config.
func (w wish) unsaid(p ocispec.Platform) bool {
	return w.spec.OSVersion != "" && p.OSVersion == "" && w.rank(p) >= 0
}

// rank returns how far p is from the platform wanted, of what runs on it, or -1.
func (w wish) rank(p ocispec.Platform) int {
	return slices.IndexFunc(w.runs, func(m platforms.MatchComparer) bool { return m.Match(p) })
}

// compare orders two platforms that match, the better one first.
func (w wish) compare(a, b ocispec.Platform) int {
	r := w.rank(a)
	if c := cmp.Compare(r, w.rank(b)); c != 0 || r < 0 {
		return c
	}
	switch {
	case w.runs[r].Less(a, b):
		return -1
	case w.runs[r].Less(b, a):
		return 1
	}
	return 0
}

// versionFits tells whether a version begins with the components that are wanted.
func versionFits(version, wanted string) bool {
	return wanted == "" || version == wanted || strings.HasPrefix(version, wanted+".")
}

// refuse returns ErrPlatform with the platforms that there are.
func (w wish) refuse(there []ocispec.Platform) *PlatformError {
	e := &PlatformError{Asked: formatPlatform(w.spec)}
	named := make(map[string]bool)
	for _, p := range there {
		if name := formatPlatform(p); !named[name] {
			named[name] = true
			e.There = append(e.There, name)
		}
	}
	return e
}

// BestPlatform returns which of some images is the best for the platform wanted,
// written as Open takes it: the position of its own platform, or of all whose
// platforms are equally good. An image that states none is for platforms that nobody
// knows. If no image is known to fit, they are all returned if platforms do not tell
// them apart: one states none, or two have the same and none was asked for. Else the
// error is a *PlatformError.
func BestPlatform(platform string, there []ocispec.Platform) ([]int, error) {
	want, err := parseWish(platform)
	if err != nil {
		return nil, err
	}
	var best, all []int
	var stated []ocispec.Platform
	for i, p := range there {
		all = append(all, i)
		if !says(p) {
			continue
		}
		stated = append(stated, p)
		if !want.match(p) {
			continue
		}
		if len(best) > 0 {
			switch c := want.compare(p, there[best[0]]); {
			case c > 0:
				continue
			case c < 0:
				best = nil
			}
		}
		best = append(best, i)
	}
	if len(best) > 0 {
		return best, nil
	}
	refused := want.refuse(stated)
	if len(stated) < len(there) || !want.asked && len(refused.There) < len(there) {
		return all, nil
	}
	return nil, refused
}

// says tells whether a platform states what every platform has.
func says(p ocispec.Platform) bool { return p.OS != "" && p.Architecture != "" && !isUnknown(p) }

// isUnknown tells whether a platform is what BuildKit states for what is no image.
func isUnknown(p ocispec.Platform) bool {
	return strings.EqualFold(p.OS, "unknown") && strings.EqualFold(p.Architecture, "unknown")
}
