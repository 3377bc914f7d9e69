package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/containerd"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
)

// Flags of imgfs snapshotter.
const (
	addressFlag = "address"
	rootFlag    = "root"
	imagesFlag  = "image-service"
)

// A snapshotterServer is imgfs snapshotter.
type snapshotterServer struct {
	e             *env
	address, root string
	remapIDs      bool
	xattrs        bool
	images        string                  // the socket of containerd's image service; "": none is asked
	credentials   *containerd.Credentials // that came by it; nil: none can
	metrics       metricsFlag
}

func snapshotterCommand(e *env) cli.Command {
	return cli.Command{
		Name:     "snapshotter",
		Unlisted: true, // the entry of run names it
		Usage:    "[FLAGS]",
		About: `Serves containerd, as root, until a signal ends it: what containerd pulls with
this snapshotter is not fetched and unpacked but mounted, and read when a
container reads it. Layers that nobody has indexed are read once. What cannot be
had so is unpacked as usual. Mounts are served by processes of their own: a
snapshotter that ends, or is started again, disturbs no container.

imgfs snapshotter config prints what containerd and docker have to be told;
docs/engines.md goes from nothing to a container that runs.`,
		Example:    "sudo imgfs snapshotter --address /run/imgfs/snapshotter.sock",
		Commands:   []cli.Command{snapshotterConfigCommand(e), snapshotterFetchCommand(e)},
		OtherFlags: map[string]string{"--log-level": "-v", "--config": "imgfs help config"},
		Setup: func(f *pflag.FlagSet) cli.Action {
			s := &snapshotterServer{e: e}
			s.flags(f)
			f.BoolVar(&s.xattrs, xattrsFlag, false, "also of files without attributes, for differs")
			f.StringVar(&s.images, imagesFlag, "", "`SOCKET` of containerd: credentials of pulls through here")
			f.Var(&s.metrics, "metrics", "`ADDR` for Prometheus: 127.0.0.1:PORT, unix:PATH (none)")
			return func(ctx context.Context, args []string) error {
				switch {
				case len(args) > 0:
					return cli.Usagef("snapshotter: %s: it takes no argument", printable.Name(args[0]))
				case os.Geteuid() != 0:
					return cli.WithHint(errors.New("snapshotter: only root can mount what containerd puts into containers"), "sudo imgfs snapshotter")
				case f.Changed(imagesFlag) && s.images == "": // as of a script whose variable is not set
					return cli.Usagef("snapshotter: --%s: the name of the socket is empty", imagesFlag)
				}
				if err := s.places(); err != nil {
					return err
				}
				return s.serve(ctx, f)
			}
		},
	}
}

// flags declares where containerd finds what.
func (s *snapshotterServer) flags(f *pflag.FlagSet) {
	f.StringVar(&s.address, addressFlag, containerd.DefaultAddress, "`SOCKET` where it is found (/run/imgfs/snapshotter.sock)")
	f.StringVar(&s.root, rootFlag, containerd.DefaultRoot, "`DIR` for snapshots (in /var/lib/containerd)")
	f.BoolVar(&s.remapIDs, "remap-ids", false, "user namespaces by idmapped mounts (Linux 6.12)")
}

// places has the socket and the root as containerd, which is started elsewhere, finds them.
func (s *snapshotterServer) places() (err error) {
	s.address = strings.TrimPrefix(s.address, "unix://") // as clients of containerd write it
	switch {
	case s.address == "":
		return cli.Usagef("snapshotter: --%s: the name of the socket is empty", addressFlag)
	case s.root == "":
		return cli.Usagef("snapshotter: --%s: the name of the directory is empty", rootFlag)
	case strings.Contains(s.address, "://"):
		return cli.Usagef("snapshotter: --%s %s: it is the path of a socket", addressFlag, printable.Name(s.address))
	}
	if s.address, err = filepath.Abs(s.address); err == nil {
		s.root, err = filepath.Abs(s.root)
	}
	return err
}

// serve serves containerd until ctx ends.
func (s *snapshotterServer) serve(ctx context.Context, f *pflag.FlagSet) error {
	ended, ok := s.e.life.Serve()
	if !ok {
		return context.Cause(ctx)
	}
	defer ended()
	disk, err := s.e.openCache()
	if err != nil {
		return err
	}
	defer disk.Close()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	trees := &containerd.Trees{Program: program, Flags: commonArgs(f), Release: releaseTree, Xattrs: s.xattrs, NoIndexes: s.e.indexes.trust == trust(image.TrustLocal),
		Layers: func(ctx context.Context, name string) ([]digest.Digest, error) { return s.layers(ctx, name, disk) }}
	l, err := containerd.Listen(ctx, s.address)
	if err != nil {
		return err
	}
	defer l.Close()
	images, err := s.imageService(l.Addr(), trees)
	if err != nil {
		return err
	}
	if images != nil {
		defer images.Close()
	}
	snaps, err := snapshotter.New(ctx, s.root, trees, &snapshotter.Options{RemapIDs: s.remapIDs, Warnf: s.e.Warnf, Debugf: s.e.Debugf})
	if err != nil {
		return err
	}
	if images != nil {
		credentials, err := containerd.ServeCredentials(ctx, trees.CredentialSocket, s.credentials)
		if err != nil {
			return errors.Join(err, snaps.Close())
		}
		defer credentials.Close()
	}
	if err := noteCache(s.root, disk.Dir()); err != nil {
		s.e.Warnf("imgfs snapshotter fetch will not know of the cache: %v", err)
	}
	stop, err := s.serveMetrics(ctx, snaps, trees)
	if err == nil {
		err = containerd.Serve(ctx, l, snaps, images, func() {
			serve.Ready("serving containerd")
			s.e.Debugf("serving containerd at %s", l.Addr())
		})
		stop()
	}
	return errors.Join(err, snaps.Close())
}

// imageService returns what takes the calls about images, nil if there is nowhere to hand them
// on to. addr is where they come.
func (s *snapshotterServer) imageService(addr net.Addr, trees *containerd.Trees) (*containerd.ImageService, error) {
	if s.images == "" {
		return nil, nil
	}
	if strings.TrimPrefix(s.images, "unix://") == addr.String() {
		return nil, cli.Usagef("snapshotter: --%s %s: that is where the snapshotter listens itself; containerd's own socket is meant", imagesFlag, printable.Name(s.images))
	}
	root, err := filepath.Abs(s.root)
	if err != nil {
		return nil, err
	}
	s.credentials = &containerd.Credentials{}
	trees.Credentials, trees.CredentialSocket = s.credentials, filepath.Join(root, "credentials.sock")
	images, err := containerd.NewImageService(s.images, s.credentials, s.e.Debugf)
	if err != nil {
		return nil, cli.Usagef("snapshotter: --%s: %v", imagesFlag, err)
	}
	return images, nil
}

// layers returns the diff ids of an image.
func (s *snapshotterServer) layers(ctx context.Context, name string, disk *cache.Cache) ([]digest.Digest, error) {
	opts := s.e.imageOptions()
	opts.Cache = disk
	if s.credentials != nil {
		opts.Registry.Fallback = s.credentials.LookUp
	}
	r, err := image.Resolve(ctx, name, opts)
	if errors.Is(err, remote.ErrUnsupported) {
		return nil, fmt.Errorf("%w: %w", snapshotter.ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	ids := make([]digest.Digest, len(r.Layers))
	for i, l := range r.Layers {
		ids[i] = l.DiffID
	}
	return ids, nil
}

// releaseTree takes an image from a directory, in use or not.
func releaseTree(ctx context.Context, dir string) error {
	if err := serve.RemoveDead(ctx, dir); err != nil {
		return err
	}
	return unmount(ctx, dir, true)
}

// commonArgs returns those flags of this process that every command takes, for another one.
func commonArgs(flags *pflag.FlagSet) (args []string) {
	common := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, declare := range newEnv(nil, nil).globalFlags() {
		declare(common)
	}
	for _, arg := range changedFlags(flags) {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if common.Lookup(name) != nil && name != "quiet" && name != "verbose" {
			args = append(args, arg)
		}
	}
	return args
}

func snapshotterConfigCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "config",
		Usage: "[FLAGS] containerd | docker",
		Entry: cli.Entry{Usage: "containerd | docker", Text: "print what they have to be told"},
		About: `Prints the lines that the configuration of containerd
(/etc/containerd/config.toml) or docker (/etc/docker/daemon.json) needs for
imgfs snapshotter, for the version that is installed, and says what is missing
on this machine. No file is changed.`,
		Example: "imgfs snapshotter config --version 2.4 containerd",
		Setup: func(f *pflag.FlagSet) cli.Action {
			s := &snapshotterServer{e: e}
			s.flags(f)
			version := f.String("version", "", "`V` of containerd (that of the one in PATH)")
			socket := f.String(containerdFlag, containerd.DefaultContainerd, "`SOCKET` of containerd, for docker")
			return func(ctx context.Context, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("snapshotter config: one of containerd and docker is needed")
				}
				if err := s.places(); err != nil {
					return err
				}
				return s.printConfig(ctx, args[0], *version, *socket)
			}
		},
	}
}

// printConfig prints what an engine has to be told.
func (s *snapshotterServer) printConfig(ctx context.Context, engine, version, socket string) error {
	var config string
	var notes []string
	switch engine {
	case "containerd":
		v, err := containerdVersion(ctx, version)
		if err != nil {
			return err
		}
		if config, notes, err = containerd.ContainerdConfig(v, containerd.Place{Address: s.address, Root: s.root, RemapIDs: s.remapIDs}); err != nil {
			return err
		}
	case "docker":
		config, notes = containerd.DockerConfig(socket)
	default:
		return cli.Usagef("snapshotter config: %s: it is one of containerd and docker", printable.Name(engine))
	}
	for _, text := range append(notes, s.missing(engine)...) {
		s.e.Warnf("%s", text)
	}
	return s.e.Print(config)
}

// containerdVersion returns the version of containerd, as given or as it is installed.
func containerdVersion(ctx context.Context, given string) (containerd.Version, error) {
	if given != "" {
		v, err := containerd.ParseVersion(given)
		if err != nil {
			return v, cli.Usagef("--version: %v", err)
		}
		return v, nil
	}
	const hint = "name its version: --version 2.4"
	out, err := exec.CommandContext(ctx, "containerd", "--version").Output()
	if err != nil {
		return containerd.Version{}, cli.WithHint(fmt.Errorf("which version of containerd is installed: %w", err), hint)
	}
	v, err := containerd.ParseVersion(string(out))
	if err != nil {
		return v, cli.WithHint(err, hint)
	}
	return v, nil
}

// missing says what this machine lacks.
func (s *snapshotterServer) missing(engine string) (all []string) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		all = append(all, "/dev/fuse is not there: modprobe fuse")
	}
	if _, err := os.Stat(s.address); err != nil {
		all = append(all, fmt.Sprintf("nobody serves %s yet: systemctl enable --now imgfs-snapshotter.socket, or imgfs snapshotter", printable.Name(s.address)))
	}
	file := map[string]string{"containerd": "/etc/containerd/config.toml", "docker": "/etc/docker/daemon.json"}[engine]
	if _, err := os.Stat(file); err == nil {
		all = append(all, file+" is there: put the lines into it, each where its table is")
	}
	return all
}
