package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// places are the directories in which podman, docker and containerd look for
// their files.
type places struct {
	user     []string // the user's own, the most important first
	etc, usr string   // of the machine, and of the distribution
	cache    string   // the user's or, for root, the machine's; "" if there is none
	uid      int
}

// aliasesFile is where podman notes, below a cache, what the user chose.
const aliasesFile = "containers/short-name-aliases.conf"

// isBarred reports whether this user may not look at a file: root of a user namespace may
// not at all that root may.
func isBarred(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrPermission)
}

// thisMachine returns the places for the user. Without a home directory there
// are fewer.
func thisMachine() places {
	p := places{etc: "/etc", usr: "/usr/share", cache: "/var/cache", uid: os.Getuid()}
	home, _ := os.UserHomeDir()
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		p.user = append(p.user, filepath.Clean(dir))
	}
	if p.uid != 0 || isBarred(filepath.Join(p.cache, aliasesFile)) {
		p.cache = os.Getenv("XDG_CACHE_HOME")
	}
	if home == "" {
		return p
	}
	// Older versions of podman read this one whatever is set.
	if dir := filepath.Join(home, ".config"); !slices.Contains(p.user, dir) {
		p.user = append(p.user, dir)
	}
	if p.cache == "" {
		p.cache = filepath.Join(home, ".cache")
	}
	return p
}

// own returns where a file or directory lies in each of the user's
// directories.
func (p places) own(name string) []string {
	var paths []string
	for _, dir := range p.user {
		paths = append(paths, filepath.Join(dir, name))
	}
	return paths
}

// shared returns podman's directories called name, such as certs.d, of the
// machine and of the distribution, the most important first. There are
// further ones for root, and for users: certs.rootful.d, certs.rootless.d and
// in this one for each user. containers-config(5).
func (p places) shared(name string) []string {
	stem, kind, _ := strings.Cut(name, ".")
	var dirs []string
	for _, root := range []string{p.etc, p.usr} {
		root = filepath.Join(root, "containers")
		if p.uid == 0 {
			dirs = append(dirs, filepath.Join(root, stem+".rootful."+kind))
		} else {
			rootless := filepath.Join(root, stem+".rootless."+kind)
			dirs = append(dirs, filepath.Join(rootless, strconv.Itoa(p.uid)), rootless)
		}
		dirs = append(dirs, filepath.Join(root, name))
	}
	return dirs
}

// registriesConf returns the files that podman reads, in its order: one
// registries.conf, the drop-ins, of which those of the machine do not count
// beside a user's own registries.conf, and the aliases that the user chose when it
// asked. containers-registries.conf(5), containers-registries.conf.d(5).
func (p places) registriesConf() ([]string, error) {
	const name = "containers/registries.conf"
	main, err := namedFile("CONTAINERS_REGISTRIES_CONF")
	if err != nil {
		return nil, err
	}
	dirs := append(p.own(name+".d"), p.shared("registries.conf.d")...)
	if main == "" {
		if main = firstFile(p.own(name)); main != "" {
			dirs = dirs[:len(p.user)]
		} else {
			main = firstFile([]string{filepath.Join(p.etc, name), filepath.Join(p.usr, name)})
		}
	}
	files := []string{main}
	for _, dir := range slices.Backward(dirs) {
		entries, err := os.ReadDir(dir)
		if err != nil && !isAbsent(err) {
			return nil, configFault(dir, err)
		}
		for _, e := range entries { // in the order of their names
			if !e.IsDir() && filepath.Ext(e.Name()) == ".conf" {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
	}
	last, err := namedFile("CONTAINERS_REGISTRIES_CONF_OVERRIDE")
	if err != nil {
		return nil, err
	}
	files = append(files, last)
	if p.cache != "" {
		files = append(files, filepath.Join(p.cache, aliasesFile))
	}
	return slices.DeleteFunc(files, func(path string) bool { return path == "" }), nil
}

// namedFile returns the file that a variable of the environment names, ""
// without one.
func namedFile(env string) (string, error) {
	path := os.Getenv(env)
	if path == "" {
		return "", nil
	}
	if _, err := os.Stat(path); err != nil {
		return "", configFault(path, fmt.Errorf("%s names it: %w", env, errors.Unwrap(err)))
	}
	return path, nil
}

// hostDirs returns where containerd's clients look for hosts.toml.
func (p places) hostDirs() []string {
	return append(p.own("containerd/certs.d"), filepath.Join(p.etc, "containerd/certs.d"))
}

// certDirs returns where podman, docker and containerd keep certificates.
func (p places) certDirs() []string {
	dirs := append(p.own("containers/certs.d"), p.shared("certs.d")...)
	dirs = append(dirs, filepath.Join(p.etc, "docker/certs.d"))
	dirs = append(dirs, p.own("docker/certs.d")...)
	return append(dirs, p.hostDirs()...)
}

// daemonJSON returns where docker's daemon is configured, which can be a
// user's own.
func (p places) daemonJSON() []string {
	machine := filepath.Join(p.etc, "docker/daemon.json")
	if p.uid == 0 {
		return []string{machine}
	}
	return append(p.own("docker/daemon.json"), machine)
}

// firstFile returns the first of several files that is there, as far as may
// be known, "" if none is.
func firstFile(paths []string) string {
	for _, path := range paths {
		if _, err := os.Stat(path); !isAbsent(err) {
			return path
		}
	}
	return ""
}

// isAbsent tells whether an error says that a file is not there.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}
