package packages

import (
	"slices"

	rpmversion "github.com/knqyf263/go-rpm-version"
	debversion "pault.ag/go/debian/version"
)

// A ChangeKind says what became of a package.
type ChangeKind string

// The kinds of changes. Changed is a package of the same version, or of versions that
// cannot be compared, for another architecture.
const (
	Added      ChangeKind = "added"
	Removed    ChangeKind = "removed"
	Upgraded   ChangeKind = "upgraded"
	Downgraded ChangeKind = "downgraded"
	Changed    ChangeKind = "changed"
)

// A Change is a package that is not the same on both sides.
type Change struct {
	Kind ChangeKind
	Name string
	// Old and New are the package on the first side and on the second; the zero Package
	// where it is not.
	Old, New Package
}

// Compare returns in what packages of one kind differ, sorted by name. Several packages
// of one name, as kernels are, are held against each other by version: one that was
// replaced by one is a change, and otherwise each was added or removed.
func Compare(kind Kind, a, b []Package) []Change {
	old, new := byName(a), byName(b)
	var names []string
	for name := range old {
		names = append(names, name)
	}
	for name := range new {
		if old[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var all []Change
	for _, name := range names {
		all = append(all, compareNamed(kind, name, old[name], new[name])...)
	}
	return all
}

func byName(packages []Package) map[string][]Package {
	all := make(map[string][]Package)
	for _, p := range packages {
		all[p.Name] = append(all[p.Name], p)
	}
	return all
}

// compareNamed compares packages of one name.
func compareNamed(kind Kind, name string, old, new []Package) []Change {
	old, new = without(old, new), without(new, old)
	var all []Change
	pair := func(a, b Package) {
		all = append(all, Change{Kind: direction(kind, a.Version, b.Version), Name: name, Old: a, New: b})
	}
	// One of an architecture for one of the same, and then one for one.
	olds, news := byArch(old), byArch(new)
	single := func(p Package) bool { return len(olds[p.Arch]) == 1 && len(news[p.Arch]) == 1 }
	for _, p := range old {
		if single(p) {
			pair(p, news[p.Arch][0])
		}
	}
	old, new = slices.DeleteFunc(old, single), slices.DeleteFunc(new, single)
	if len(old) == 1 && len(new) == 1 {
		pair(old[0], new[0])
		old, new = nil, nil
	}
	for _, p := range old {
		all = append(all, Change{Kind: Removed, Name: name, Old: p})
	}
	for _, p := range new {
		all = append(all, Change{Kind: Added, Name: name, New: p})
	}
	return all
}

// without returns the packages of a that are not in b. What is twice in a is there once
// more than in b.
func without(a, b []Package) []Package {
	count := make(map[Package]int)
	for _, p := range b {
		count[p]++
	}
	var rest []Package
	for _, p := range a {
		if count[p]--; count[p] < 0 {
			rest = append(rest, p)
		}
	}
	return rest
}

func byArch(packages []Package) map[string][]Package {
	all := make(map[string][]Package)
	for _, p := range packages {
		all[p.Arch] = append(all[p.Arch], p)
	}
	return all
}

// direction says which way a version has changed.
func direction(kind Kind, old, new string) ChangeKind {
	if len(old) > maxVersion || len(new) > maxVersion {
		return Changed
	}
	switch c := CompareVersions(kind, old, new); {
	case c < 0:
		return Upgraded
	case c > 0:
		return Downgraded
	}
	return Changed
}

// maxVersion is how long a version is at most that is compared.
const maxVersion = 4096

// CompareVersions returns -1 if a is an older version than b, 1 if it is a newer one, and
// 0 if neither is, or one of them is none, by the rules of the package manager.
func CompareVersions(kind Kind, a, b string) int {
	switch kind {
	case Dpkg:
		x, errA := debversion.Parse(a)
		y, errB := debversion.Parse(b)
		if errA != nil || errB != nil {
			return 0
		}
		return sign(debversion.Compare(x, y))
	case RPM:
		return sign(rpmversion.NewVersion(a).Compare(rpmversion.NewVersion(b)))
	}
	return compareAPK(a, b)
}

func sign(n int) int { return max(-1, min(1, n)) }
