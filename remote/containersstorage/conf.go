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
	uid, private := rootless()
	home := os.Getenv("HOME")
	var conf storageConf
	own := false // the file is the user's
	var err error
	switch file := os.Getenv("CONTAINERS_STORAGE_CONF"); {
	case file != "":
		own = true
		err = readConf(file, &conf)
	default:
		err = fs.ErrNotExist
		if config := cmp.Or(os.Getenv("XDG_CONFIG_HOME"), below(home, ".config")); private && config != "" {
			own = true
			err = readConf(filepath.Join(config, "containers/storage.conf"), &conf)
		}
		for _, file := range []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"} {
			if errors.Is(err, fs.ErrNotExist) {
				own = false
				err = readConf(file, &conf)
			}
		}
	}
	if err != nil && (own || !errors.Is(err, fs.ErrNotExist)) {
		return nil, fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
	}
	s := &conf.Storage
	root := "/var/lib/containers/storage"
	if private {
		root = below(cmp.Or(os.Getenv("XDG_DATA_HOME"), below(home, ".local/share")), "containers/storage")
		if s.RootlessStoragePath != "" {
			root = expand(s.RootlessStoragePath, home, uid)
		}
	}
	if (own || !private) && s.GraphRoot != "" {
		root = expand(s.GraphRoot, home, uid)
	}
	if root == "" {
		return nil, fmt.Errorf("%w: neither storage.conf nor HOME says where the store is", remote.ErrUnavailable)
	}
	driver := driverName(cmp.Or(os.Getenv("STORAGE_DRIVER"), s.Driver))
	all := []place{{root: root, driver: driver, usual: true}}
	for _, more := range append([]string{s.ImageStore}, s.Options.AdditionalImageStores...) {
		if more != "" {
			all = append(all, place{root: expand(more, home, uid), driver: driver, usual: true})
		}
	}
	return all, nil
}

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
