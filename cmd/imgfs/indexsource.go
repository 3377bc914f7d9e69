package main

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/spf13/pflag"
)

// An indexSource says where indexes of layers may come from, besides a pass over the
// layer.
type indexSource struct {
	repos repoList
	trust trust
}

// indexFlags are the flags of an indexSource.
var indexFlags = []string{"index-repo", "index-trust"}

// flags declares the flags, which the help of imgfs index describes.
func (s *indexSource) flags(f *pflag.FlagSet) {
	f.Var(&s.repos, "index-repo", "`REPO` where indexes are published, HOST/PATH; repeatable (IMGFS_INDEX_REPO)")
	f.Var(&s.trust, "index-trust", "`W` indexes of others: \"local\": none, \"bound\": by the manifest, \"published\": all")
	for _, name := range indexFlags {
		f.Lookup(name).Hidden, f.Lookup(name).Annotations = true, map[string][]string{cli.Known: nil}
	}
}

// configure sets the fields of opts that s is about.
func (s *indexSource) configure(opts *image.Options) error {
	opts.IndexTrust, opts.IndexRepos = image.IndexTrust(s.trust), s.repos
	if text := os.Getenv("IMGFS_INDEX_REPO"); s.repos == nil && text != "" {
		var repos repoList
		if err := repos.Set(text); err != nil {
			return cli.Usagef("the variable IMGFS_INDEX_REPO: %v", err)
		}
		opts.IndexRepos = repos
	}
	return nil
}

// A repoList is the value of a flag that names repositories, and that may be given
// several times.
type repoList []string

// String implements pflag.Value.
func (l *repoList) String() string { return strings.Join(*l, ",") }

// Type implements pflag.Value.
func (l *repoList) Type() string { return "repositories" }

// Set implements pflag.Value: it adds to the list.
func (l *repoList) Set(s string) error {
	for _, name := range strings.Split(s, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return errors.New("it is empty; a repository is such as registry.example.com/imgfs/indexes")
		}
		ref, err := remote.ParseRepository(name)
		if err != nil {
			return err
		}
		if !slices.Contains(*l, ref.Name()) {
			*l = append(*l, ref.Name())
		}
	}
	return nil
}

// A trust is the value of --index-trust.
type trust image.IndexTrust

var trusts = []string{image.TrustNamed: "", image.TrustLocal: "local", image.TrustBound: "bound", image.TrustPublished: "published"}

// String implements pflag.Value.
func (t *trust) String() string { return trusts[*t] }

// Type implements pflag.Value.
func (t *trust) Type() string { return "trust" }

// Set implements pflag.Value.
func (t *trust) Set(s string) error {
	i := slices.Index(trusts, s)
	if i <= 0 {
		return errors.New("it is one of local, bound, published")
	}
	*t = trust(i)
	return nil
}
