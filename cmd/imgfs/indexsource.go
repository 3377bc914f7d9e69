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

// flags declares the flags, which the help of imgfs index describes in full.
func (s *indexSource) flags(f *pflag.FlagSet) {
	f.Var(&s.repos, "index-repo", "`REPO` where indexes are published; repeatable")
	cli.Note(f.Lookup("index-repo"), cli.Variables, "IMGFS_INDEX_REPO")
	f.Var(&s.trust, "index-trust", "`W` indexes of others: local, bound, repos, published")
	cli.Note(f.Lookup("index-trust"), cli.Words, trusts[1:]...)
}

// configure sets the fields of opts that s is about.
func (s *indexSource) configure(opts *image.Options) error {
	opts.IndexTrust, opts.IndexRepos = image.IndexTrust(s.trust), s.repos.names
	if text := os.Getenv("IMGFS_INDEX_REPO"); s.repos.names == nil && text != "" {
		var repos repoList
		if err := repos.Set(text); err != nil {
			return cli.Usagef("the variable IMGFS_INDEX_REPO: %v", err)
		}
		opts.IndexRepos = repos.names
	}
	return nil
}

// A repoList is the value of a flag that names repositories, and that may be given
// several times.
type repoList struct {
	names []string
	fresh bool // the next value begins a new list
}

var _ cli.Replacer = (*repoList)(nil)

// Replace implements cli.Replacer.
func (l *repoList) Replace() { l.fresh = true }

// String implements pflag.Value.
func (l *repoList) String() string { return strings.Join(l.names, ",") }

// Type implements pflag.Value.
func (l *repoList) Type() string { return "repositories" }

// Set implements pflag.Value: it adds to the list.
func (l *repoList) Set(s string) error {
	if l.fresh {
		l.names, l.fresh = nil, false
	}
	for _, name := range strings.Split(s, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return errors.New("it is empty; a repository is such as registry.example.com/imgfs/indexes")
		}
		ref, err := remote.ParseRepository(name)
		if err != nil {
			return err
		}
		if !slices.Contains(l.names, ref.Name()) {
			l.names = append(l.names, ref.Name())
		}
	}
	return nil
}

// A trust is the value of --index-trust.
type trust image.IndexTrust

var trusts = []string{image.TrustNamed: "", image.TrustLocal: "local", image.TrustBound: "bound", image.TrustRepositories: "repos", image.TrustPublished: "published"}

// String implements pflag.Value.
func (t *trust) String() string { return trusts[*t] }

// Type implements pflag.Value.
func (t *trust) Type() string { return "trust" }

// Set implements pflag.Value.
func (t *trust) Set(s string) error {
	i := slices.Index(trusts, s)
	if i <= 0 {
		return errors.New("it is one of local, bound, repos, published")
	}
	*t = trust(i)
	return nil
}
