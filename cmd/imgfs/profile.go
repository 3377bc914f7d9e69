package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/profile"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// profileFlag says which profile a mount goes by: one of its words, or a file.
const profileFlag = "profile"

// Words of profileFlag.
const (
	profileAuto = "auto"
	profileOff  = "off"
)

// forecaster returns what is to be expected to be read of an image; nil for nothing.
func (m *mounter) forecaster() (*serve.Forecaster, error) {
	switch m.profile {
	case profileOff:
		return nil, nil
	case profileAuto:
		return &serve.Forecaster{}, nil
	case "":
		return nil, cli.Usagef("mount: --%s: it is auto, off, or the name of a file", profileFlag)
	}
	f, err := os.Open(m.profile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable.Name(m.profile), err)
	}
	return &serve.Forecaster{Profile: p}, nil
}

// absProfile returns the value of profileFlag for a process that is elsewhere.
func absProfile(value string) string {
	if value == profileAuto || value == profileOff || value == "" {
		return value
	}
	if abs, err := filepath.Abs(value); err == nil {
		return abs
	}
	return value
}

func profileCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "profile",
		Usage: "show | export | import | rm",
		About: `A mount notes what is read in its first minutes, by path, for all images of the
repository. The next mount, of any tag, fetches what it has of that before it is
asked for, so that programs start sooner. The cache keeps what was noted for a
repository and platform; imgfs mount --profile says otherwise.`,
		Others:   map[string]string{"ls": "imgfs profile show IMAGE", "list": "imgfs profile show IMAGE", "remove": "imgfs profile rm IMAGE", "delete": "imgfs profile rm IMAGE"},
		Commands: []cli.Command{profileShowCommand(e), profileExportCommand(e), profileImportCommand(e), profileRmCommand(e)},
		Notes:    "It says which files somebody has read: look at it before you give it away.",
		Example:  "imgfs profile show fedora:latest",
	}
}

// A profileKey is what a profile is of.
type profileKey struct{ repository, platform string }

// withProfile calls do with the cache and what the profile of an image is of. It asks no
// registry.
func (e *env) withProfile(ctx context.Context, command, name string, do func(c *cache.Cache, key profileKey) error) error {
	if err := wholeImage(command, name, ""); err != nil {
		return err
	}
	full, err := e.nameNow(ctx, name)
	if err != nil {
		return err
	}
	p := remote.HostPlatform()
	if e.platform != "" {
		if p, err = remote.ParsePlatform(e.platform); err != nil {
			return err
		}
	}
	var key profileKey
	var ok bool
	if key.repository, key.platform, ok = image.ProfileKey(full, p); !ok {
		return errProfileLocal(full)
	}
	disk, err := e.openCache()
	if err != nil {
		return err
	}
	defer disk.Close()
	return do(disk, key)
}

// errProfileLocal says that images that are on this machine have no profile.
func errProfileLocal(name string) error {
	return fmt.Errorf("%s is on this machine: nothing is noted of how it is read", printable.Name(name))
}

// errNoProfile says that there is no profile, and how it comes to be.
func errNoProfile(key profileKey) error {
	return cli.WithHint(fmt.Errorf("nothing was noted of %s for %s", printable.Name(key.repository), printable.Name(key.platform)),
		"imgfs mount notes what is read of an image in its first minutes, when it is unmounted or they are over")
}

// one returns the only argument of a command, an image.
func one(command string, args []string) (string, error) {
	if len(args) != 1 {
		return "", cli.Usagef("%s: one image is needed", command)
	}
	return args[0], nil
}

// withNoted calls do with the profile of the image that is the only argument of a command. It
// is an error if there is none.
func (e *env) withNoted(ctx context.Context, command string, args []string, do func(p *profile.Profile) error) error {
	name, err := one(command, args)
	if err != nil {
		return err
	}
	return e.withProfile(ctx, command, name, func(c *cache.Cache, key profileKey) error {
		p, err := image.ReadProfile(c, key.repository, key.platform)
		switch {
		case err != nil:
			return err
		case p == nil:
			return errNoProfile(key)
		}
		return do(p)
	})
}

// A profileDoc is what imgfs profile show --json prints.
type profileDoc struct {
	Repository string         `json:"repository"`
	Platform   string         `json:"platform"`
	Starts     []profileStart `json:"starts"` // the one seen last first
}

// A profileStart is a start in the output of imgfs profile show. Sizes are in bytes.
type profileStart struct {
	Last time.Time `json:"last"`
	Runs int       `json:"runs"`
	// Files and Bytes are all that was read, Likely how much of that the next mount
	// fetches: what half of the runs have read.
	Files  int           `json:"files"`
	Bytes  int64         `json:"bytes"`
	Likely int64         `json:"likely"`
	Reads  []profileRead `json:"reads"` // in their order
}

// A profileRead is a part of a file in the output of imgfs profile show.
type profileRead struct {
	Path      string         `json:"path"`
	PathBytes show.NameBytes `json:"pathBytes,omitempty"`
	Off       int64          `json:"off"`
	Size      int64          `json:"size"`
	After     float64        `json:"afterSeconds"`
	Share     int            `json:"share"` // of a hundred runs
}

func profileShowCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "show",
		Usage: "[FLAGS] IMAGE",
		Entry: cli.Entry{Usage: "IMAGE", Text: "list the starts of programs that were noted"},
		About: `Lists what was noted of the images of a repository, a row for each start of a
program, the last one first: when it was seen last and how often, how many files
it reads, how much of them, and how much of that the next mount fetches; and the
largest file, by which one knows what was started.`,
		Example: "imgfs profile show fedora:latest",
		Setup: func(f *pflag.FlagSet) cli.Action {
			files := f.Bool("files", false, "a row for each part of a file in place of that")
			asJSON := f.Bool("json", false, "an object with all of it; docs/json.md names its members")
			e.bytesFlag(f)
			return func(ctx context.Context, args []string) error {
				return e.withNoted(ctx, "profile show", args, func(p *profile.Profile) error {
					switch {
					case *asJSON:
						return show.JSON(e.Stdout, newProfileDoc(p))
					case *files:
						return e.printReads(p)
					}
					return e.printStarts(p)
				})
			}
		},
	}
}

func newProfileDoc(p *profile.Profile) *profileDoc {
	doc := &profileDoc{Repository: p.Repository, Platform: p.Platform, Starts: []profileStart{}}
	for _, s := range p.Starts {
		row := profileStart{Last: s.Last, Runs: s.Runs, Files: s.Files(), Bytes: s.Bytes(0), Likely: s.Bytes(profile.Likely), Reads: []profileRead{}}
		for _, r := range s.Reads {
			row.Reads = append(row.Reads, profileRead{Path: r.Path, Off: r.Off, Size: r.Size, After: r.After.Seconds(), Share: r.Share})
		}
		doc.Starts = append(doc.Starts, row)
	}
	return doc
}

// printStarts prints a row for each start.
func (e *env) printStarts(p *profile.Profile) error {
	t := show.NewTable(e.tableWidth(), show.Column{Title: "LAST"}, show.Column{Title: "RUNS", Drop: 2}, show.Column{Title: "FILES", Drop: 1},
		show.Column{Title: "READ", Drop: 3}, show.Column{Title: "LIKELY", Drop: 4}, show.Column{Title: "LARGEST", Least: 12})
	for _, s := range p.Starts {
		t.Row(s.Last.Local().Format(time.DateTime), fmt.Sprint(s.Runs), fmt.Sprint(s.Files()), e.size(s.Bytes(0)), e.size(s.Bytes(profile.Likely)), printable.Cell(largest(s)))
	}
	return t.Print(e.Stdout)
}

// largest returns the path of the file that most is read of.
func largest(s profile.Start) (path string) {
	bytes := map[string]int64{}
	for _, r := range s.Reads {
		if bytes[r.Path] += r.Size; bytes[r.Path] > bytes[path] {
			path = r.Path
		}
	}
	return path
}

// printReads prints a row for each read of each start.
func (e *env) printReads(p *profile.Profile) error {
	t := show.NewTable(e.tableWidth(), show.Column{Title: "START"}, show.Column{Title: "AFTER", Drop: 1}, show.Column{Title: "SHARE", Drop: 2},
		show.Column{Title: "OFFSET", Drop: 3}, show.Column{Title: "SIZE", Drop: 4}, show.Column{Title: "PATH", Least: 12})
	for i, s := range p.Starts {
		for _, r := range s.Reads {
			t.Row(fmt.Sprint(i+1), show.Seconds(r.After.Seconds()), fmt.Sprintf("%d%%", r.Share), e.size(r.Off), e.size(r.Size), printable.Cell(r.Path))
		}
	}
	return t.Print(e.Stdout)
}

func profileExportCommand(e *env) cli.Command {
	return cli.Command{
		Name:    "export",
		Usage:   "IMAGE",
		Entry:   cli.Entry{Usage: "IMAGE", Text: "write it out, for mount --profile FILE"},
		About:   `Writes what was noted to standard output: docs/profile-format.md describes it.`,
		Example: "imgfs profile export fedora:latest >fedora.profile",
		Setup: func(f *pflag.FlagSet) cli.Action {
			return func(ctx context.Context, args []string) error {
				return e.withNoted(ctx, "profile export", args, func(p *profile.Profile) error {
					_, err := e.Raw.Write(printable.JSON(p.Encode()))
					return err
				})
			}
		},
	}
}

func profileImportCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "import",
		Usage: "IMAGE [FILE]",
		Entry: cli.Entry{Usage: "IMAGE [FILE]", Text: "keep a profile that somebody has exported"},
		About: `Reads a profile from FILE, or standard input, and keeps it for the repository of
IMAGE in place of what was noted. It may be that of another repository: what the
image does not have is not fetched.`,
		Example: "imgfs profile import fedora:latest fedora.profile",
		Setup: func(f *pflag.FlagSet) cli.Action {
			return func(ctx context.Context, args []string) error {
				if len(args) != 1 && len(args) != 2 {
					return cli.Usagef("profile import: an image is needed, and at most one file")
				}
				return e.withProfile(ctx, "profile import", args[0], func(c *cache.Cache, key profileKey) error {
					p, err := e.readProfile(ctx, args[1:])
					if err != nil {
						return err
					}
					p.Repository, p.Platform = key.repository, key.platform
					return image.KeepProfile(c, p)
				})
			}
		},
	}
}

// readProfile reads a profile from a file, or from standard input if none is named.
func (e *env) readProfile(ctx context.Context, names []string) (*profile.Profile, error) {
	from, name := io.Reader(e.stdin.file), "standard input"
	if len(names) > 0 && names[0] != "-" {
		f, err := openWaiting(ctx, names[0], os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from, name = f, printable.Name(names[0])
	}
	// Who writes into a pipe may take long.
	p, err := untilDone(ctx, func() (*profile.Profile, error) { return profile.Decode(from) })
	if errors.Is(err, profile.ErrFormat) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return p, err
}

func profileRmCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "rm",
		Usage: "IMAGE",
		Entry: cli.Entry{Usage: "IMAGE", Text: "forget what was noted"},
		About: `Removes what was noted of the images of a repository: the next mount begins
anew.`,
		Example: "imgfs profile rm fedora:latest",
		Setup: func(f *pflag.FlagSet) cli.Action {
			return func(ctx context.Context, args []string) error {
				name, err := one("profile rm", args)
				if err != nil {
					return err
				}
				return e.withProfile(ctx, "profile rm", name, func(c *cache.Cache, key profileKey) error {
					removed, err := c.Meta.RemoveProfile(key.repository, key.platform)
					if err == nil && !removed {
						err = errNoProfile(key)
					}
					return err
				})
			}
		},
	}
}
