package containersstorage

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/imgfs/imgfs/remote"
)

// A place is where a store lies.
type place struct {
	root string
	// driver is what keeps its layers, "" if that is to be found out.
	driver string
	// usual says that the user has not named it.
	usual bool
}

// places returns the stores that a specification means, the one that is written to
// first: [DRIVER@]ROOT[+RUNROOT][:OPTIONS] as podman and skopeo have it, or "" for what
// storage.conf says. RUNROOT and OPTIONS mean nothing for reading.
func places(spec string) ([]place, error) {
	if spec == "" {
		return usualPlaces()
	}
	root := spec
	driver, after, found := strings.Cut(spec, "@")
	if found && !strings.HasPrefix(spec, "/") {
		root = after
		if driver == "" {
			return nil, fmt.Errorf("%w: [%s] has nothing before the @", remote.ErrReference, spec)
		}
	} else {
		driver = ""
	}
	root, _, _ = strings.Cut(root, ":")
	root, _, _ = strings.Cut(root, "+")
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("%w: [%s] is not [ROOT] or [DRIVER@ROOT] with an absolute path", remote.ErrReference, spec)
	}
	return []place{{root: filepath.Clean(root), driver: driverName(driver)}}, nil
}

// driverName returns the name by which a driver's files go.
func driverName(driver string) string {
	if driver == "overlay2" {
		return "overlay"
	}
	return driver
}

// A storageConf is what is of use of a storage.conf.
type storageConf struct {
	Storage struct {
		Driver              string `toml:"driver"`
		GraphRoot           string `toml:"graphroot"`
		ImageStore          string `toml:"imagestore"`
		RootlessStoragePath string `toml:"rootless_storage_path"`
		Options             struct {
			AdditionalImageStores []string `toml:"additionalimagestores"`
		} `toml:"options"`
	} `toml:"storage"`
}

// rootless returns whether podman would work without root's rights for whoever asks, and
// as which user. In podman unshare the user is root of a namespace.
func rootless() (uid string, ok bool) {
	if uid := os.Getenv("_CONTAINERS_ROOTLESS_UID"); uid != "" {
		return uid, uid != "0"
	}
	return strconv.Itoa(os.Geteuid()), os.Geteuid() != 0 || os.Getenv("_CONTAINERS_USERNS_CONFIGURED") != ""
}

// usualPlaces returns the stores of this user.
func usualPlaces() ([]place, error) {
	c, err := ReadConfig()
	if err != nil {
		return nil, err
	}
	all := []place{{root: c.GraphRoot, driver: c.Driver, usual: true}}
	for _, more := range append([]string{c.ImageStore}, c.ImageStores...) {
		if more != "" {
			all = append(all, place{root: more, driver: c.Driver, usual: true})
		}
	}
	return all, nil
}

// A Config is what storage.conf says of this user's stores, with the defaults of podman.
type Config struct {
	File      string // what was read; "" if there is none
	Own       string // the one that this user can have; File may be the machine's
	Rootless  bool   // whether podman works without root's rights
	Driver    string // what keeps the layers; "" if podman chooses
	GraphRoot string // the store that is written to
	// ImageStore takes images in place of GraphRoot; "" for none.
	ImageStore string
	// ImageStores are the additional ones, which are read only.
	ImageStores []string
}

// ReadConfig reads the storage.conf of this user, or the machine's. In podman unshare that is
// the file of the user outside. The errors wrap remote.ErrUnavailable.
func ReadConfig() (*Config, error) {
	uid, private := rootless()
	home := os.Getenv("HOME")
	c := &Config{Rootless: private, Own: etcConf}
	if config := cmp.Or(os.Getenv("XDG_CONFIG_HOME"), below(home, ".config")); private {
		c.Own = below(config, "containers/storage.conf")
	}
	files := []string{etcConf, "/usr/share/containers/storage.conf"}
	named := os.Getenv("CONTAINERS_STORAGE_CONF")
	switch {
	case named != "":
		c.Own, files = named, []string{named}
	case private && c.Own != "":
		files = append([]string{c.Own}, files...)
	}
	var conf storageConf
	err := error(fs.ErrNotExist)
	for i := 0; i < len(files) && errors.Is(err, fs.ErrNotExist); i++ {
		if err = readConf(files[i], &conf); err == nil {
			c.File = files[i]
		}
	}
	// What the user has named must be there.
	if err != nil && (named != "" || !errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
	}
	s := &conf.Storage
	c.GraphRoot = "/var/lib/containers/storage"
	if private {
		c.GraphRoot = below(cmp.Or(os.Getenv("XDG_DATA_HOME"), below(home, ".local/share")), "containers/storage")
		if s.RootlessStoragePath != "" {
			c.GraphRoot = expand(s.RootlessStoragePath, home, uid)
		}
	}
	if (c.File == c.Own || !private) && s.GraphRoot != "" {
		c.GraphRoot = expand(s.GraphRoot, home, uid)
	}
	if c.GraphRoot == "" {
		return nil, fmt.Errorf("%w: neither storage.conf nor HOME says where the store is", remote.ErrUnavailable)
	}
	c.Driver = driverName(cmp.Or(os.Getenv("STORAGE_DRIVER"), s.Driver))
	if s.ImageStore != "" {
		c.ImageStore = expand(s.ImageStore, home, uid)
	}
	for _, more := range s.Options.AdditionalImageStores {
		c.ImageStores = append(c.ImageStores, expand(more, home, uid))
	}
	return c, nil
}

// etcConf is the file of the machine's administrator.
const etcConf = "/etc/containers/storage.conf"

// below joins paths, unless the first is empty.
func below(dir, name string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

// expand replaces the variables that podman replaces.
func expand(path, home, uid string) string {
	return os.Expand(path, func(name string) string {
		switch name {
		case "HOME":
			return home
		case "UID":
			return uid
		}
		return os.Getenv(name)
	})
}

// maxConf is the largest storage.conf that is read.
const maxConf = 1 << 20

func readConf(file string, conf *storageConf) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxConf {
		return fmt.Errorf("%s: not a regular file of at most %d bytes", file, maxConf)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := toml.Unmarshal(text, conf); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
