package hosts

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// An ownTable holds the settings of imgfs itself in the files of others, which pass
// it over.
type ownTable struct {
	IndexRepo any `toml:"index-repo"` // a name or several
}

// maxIndexRepos is how many index repositories a registry may have: each is asked for
// every image.
const maxIndexRepos = 8

// indexRepos returns the names of the index repositories, each once; nil if nothing is
// said of them.
func (t *ownTable) indexRepos() ([]string, error) {
	const setting = "imgfs.index-repo"
	names, err := texts(setting, t.IndexRepo)
	if err != nil || t.IndexRepo == nil {
		return nil, err
	}
	repos := []string{}
	for _, name := range names {
		ref, err := remote.ParseRepository(name)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", setting, err)
		case ref.Name() != name:
			return nil, fmt.Errorf("%s: %q is not the full name of a repository with its registry; if docker.io is meant: %q", setting, scrub.Text(name), ref.Name())
		}
		if !slices.Contains(repos, ref.Name()) {
			repos = append(repos, ref.Name())
		}
	}
	if len(repos) > maxIndexRepos {
		return nil, fmt.Errorf("%s: %d repositories, and %d are the most", setting, len(repos), maxIndexRepos)
	}
	return repos, nil
}

// IndexRepos returns the repositories that may have indexes of the layers of ref's
// image, by the setting imgfs.index-repo: that of its registry's hosts.toml, or else of
// the [[registry]] that fits the image, or else of the hosts.toml for all registries.
// There may be none. Each is named as remote.ParseRepository takes it, in the order to
// ask them. The error is ErrConfiguration, wrapped; for an image that Sites refuses it
// is that of Sites.
func (c *Configuration) IndexRepos(_ context.Context, ref remote.Reference) ([]string, error) {
	if err := c.blocked(ref.String()); err != nil {
		return nil, err
	}
	repos, err := c.hostIndexRepos(hostDirNames(ref.Registry))
	if err != nil || repos != nil {
		return repos, err
	}
	if e := c.entryFor(ref.Name()); e != nil && e.indexRepos != nil {
		return slices.Clone(e.indexRepos), nil
	}
	return c.hostIndexRepos([]string{"_default"})
}

// hostIndexRepos returns the index repositories of the hosts.toml that hostSites reads.
func (c *Configuration) hostIndexRepos(names []string) ([]string, error) {
	dir, data, err := c.findHosts(names)
	if data == nil {
		return nil, err
	}
	file, _, err := decodeHosts(data)
	if err != nil {
		return nil, configFault(hostsPath(dir), err)
	}
	return file.indexRepos, nil
}

// checkOwn reads the settings of imgfs in a hosts.toml. They are for the registry's
// images, wherever these come from, and not for one of its hosts.
func (f *hostsFile) checkOwn() (err error) {
	for server, table := range f.Hosts {
		if table.Own.IndexRepo != nil {
			return fmt.Errorf("%s: imgfs.index-repo stands before all [host] tables, as it is for images from anywhere", scrub.Text(server))
		}
	}
	f.indexRepos, err = f.Own.indexRepos()
	return err
}

var errMirrorOwn = errors.New("imgfs.index-repo belongs to a [[registry]], and not to a mirror of one")
