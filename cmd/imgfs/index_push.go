package main

import (
	"context"
	"encoding/hex"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/profile"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/indexrepo"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
)

func indexPushCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "push",
		Usage: "[FLAGS] IMAGE",
		Entry: cli.Entry{Usage: "IMAGE", Text: "publish them, so that nobody else reads the layers"},
		About: `Publishes the indexes of the image's layers: in the index repository REPO, which
may be in any registry, or beside the image. Layers that have not been read here
are read first. Whoever mounts an image with these layers and --index-repo REPO
then reads no layer whole. What is there already is not sent again. Prints a row
for each layer, the base first. With --profile it publishes, too, what mounts
have noted of the repository's images, for those who mount one the first time.`,
		Notes: `A profile says which files somebody has read: imgfs profile show --files lists
them. An image that is called push is indexed with imgfs index push:latest.`,
		Example: "imgfs index push --to registry.example.com/imgfs/indexes fedora:latest",
		Setup: func(f *pflag.FlagSet) cli.Action {
			to := f.String("to", "", "`REPO` an index repository, HOST/PATH (the image's own repository)")
			soci := f.Bool("soci", false, "put the image with a SOCI index, as TAG-soci, for SOCI's tools")
			withProfile := f.Bool("profile", false, "publish the profile of the repository, too: imgfs help profile")
			e.bytesFlag(f)
			asJSON := f.Bool("json", false, "an array of objects instead of a table: docs/json.md")
			return func(ctx context.Context, args []string) error {
				switch {
				case len(args) == 0:
					return cli.WithHint(cli.Usagef("index push: one image is needed"), "imgfs index push:latest indexes an image that is called push; imgfs help index push")
				case len(args) != 1:
					return cli.Usagef("index push: one image is needed")
				case e.offline:
					return offlineHint(f, cli.Usagef("index push: --offline leaves no registry to push to"))
				case *soci && f.Changed("to"):
					return cli.Usagef("index push: --soci and --to exclude each other: a SOCI index lies where the image's layers are")
				case *soci && *withProfile:
					return cli.Usagef("index push: --soci and --profile exclude each other: SOCI's tools know no profiles")
				case f.Changed("to"):
					if _, err := remote.ParseRepository(*to); err != nil {
						return cli.Usagef("index push: --to: %v", err)
					}
				}
				if err := wholeImage("index push", args[0], ""); err != nil {
					return err
				}
				return indexPush(ctx, e, args[0], &pushOptions{to: *to, soci: *soci, profile: *withProfile, asJSON: *asJSON})
			}
		},
	}
}

// pushOptions are the flags of imgfs index push.
type pushOptions struct {
	to                    string // "": beside the image
	soci, profile, asJSON bool
}

// A pushRow is a layer in the output of imgfs index push.
type pushRow struct {
	Digest digest.Digest `json:"digest"`
	Codec  string        `json:"codec"`
	// Header is the checksum of the published index's header, in hex: it names the index.
	// There is none of a ztoc of SOCI.
	Header string `json:"header,omitempty"`
	// Bytes is the size of the index with the content digests.
	Bytes int64 `json:"bytes"`
	// Pushed says that something was sent. Else all was there.
	Pushed bool `json:"pushed"`
}

func indexPush(ctx context.Context, e *env, name string, opts *pushOptions) error {
	// Only what was made here is published.
	e.indexes.trust = trust(image.TrustLocal)
	disk, err := e.openCache()
	if err != nil {
		return err
	}
	defer disk.Close()
	r, err := e.resolve(ctx, name, disk)
	if err != nil {
		return err
	}
	if opts.soci {
		err = r.CheckPublishSOCI()
	} else if err = r.CheckPublish(opts.to); err != nil {
		err = cli.WithHint(err, "--to REPO puts them into an index repository")
	}
	var noted *profile.Profile
	if err == nil && opts.profile {
		noted, err = profileToPush(disk, r)
	}
	if err != nil {
		r.Close()
		return err
	}
	layers, err := e.openLayers(ctx, r)
	if err != nil {
		return err
	}
	defer layers.Close()
	results, err := e.push(ctx, layers, opts.to, opts.soci)
	if err != nil {
		return err
	}
	pushed := false
	if noted != nil {
		if pushed, err = r.PublishProfile(ctx, opts.to, "imgfs "+version(), noted); err != nil {
			return err
		}
	}
	rows := make([]pushRow, len(results))
	for i, r := range results {
		rows[i] = pushRow{Digest: r.Layer, Codec: r.Codec, Bytes: r.Bytes, Pushed: r.Pushed}
		if !opts.soci {
			rows[i].Header = hex.EncodeToString(r.Header[:])
		}
	}
	if opts.asJSON {
		return show.JSON(e.Stdout, rows)
	}
	if !opts.soci {
		e.sayWhere(opts.to)
	}
	if noted != nil {
		e.Warnf("the profile of %s for %s is %s", printable.Name(noted.Repository), printable.Name(noted.Platform), pushState(pushed))
	}
	return e.printPush(rows)
}

// profileToPush returns the profile that the cache has for images like this one.
func profileToPush(c *cache.Cache, r *image.Resolved) (*profile.Profile, error) {
	var key profileKey
	ok := r.HasProfile()
	if ok {
		key.repository, key.platform, ok = image.ProfileKey(r.Name(), r.Platform)
	}
	if !ok {
		return nil, errProfileLocal(r.Name())
	}
	p, err := image.ReadProfile(c, key.repository, key.platform)
	if err == nil && p == nil {
		err = errNoProfile(key)
	}
	return p, err
}

// pushState says what became of something that was published.
func pushState(pushed bool) string {
	if pushed {
		return "pushed"
	}
	return "there"
}

// sayWhere says how the indexes that are now in a repository, or beside the image for "",
// come to be used.
func (e *env) sayWhere(to string) {
	if to == "" {
		e.Warnf("the indexes are beside the image: --index-trust=published uses them")
		return
	}
	if ref, err := remote.ParseRepository(to); err == nil {
		to = ref.Name()
	}
	e.Warnf("--index-repo %s uses these indexes", printable.Word(to))
}

// push publishes the indexes of layers, of one of two kinds.
func (e *env) push(ctx context.Context, layers *image.Layers, to string, soci bool) ([]indexrepo.Result, error) {
	if soci {
		name, results, err := layers.PublishSOCI(ctx, "imgfs "+version())
		if err == nil {
			e.Warnf("the image with a SOCI index is %s", printable.Name(name))
		}
		return results, err
	}
	bar := show.NewBar(e, "pushing")
	defer bar.Finish()
	return layers.Publish(ctx, &image.PublishOptions{Repository: to, Version: "imgfs " + version(), Progress: bar.Update})
}

// printPush prints rows for people.
func (e *env) printPush(rows []pushRow) error {
	t := show.NewTable(e.tableWidth(), show.Column{Title: "LAYER", Least: 16}, show.Column{Title: "INDEX"}, show.Column{Title: "PUSHED", Drop: 1})
	for _, r := range rows {
		t.Row(printable.Cell(r.Digest.String()), e.size(r.Bytes), printable.Cell(pushState(r.Pushed)))
	}
	return t.Print(e.Stdout)
}
