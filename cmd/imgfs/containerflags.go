package main

import (
	"encoding/json"
	"errors"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/bundle"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
)

// containerFlags are the flags of bundle and run that say how the command in a container
// is started. Their names are those of docker and podman.
type containerFlags struct {
	set        *pflag.FlagSet
	env        []string
	volumes    []string
	workdir    string
	user       string
	entrypoint string
	hostname   string
	network    networkFlag
	readOnly   bool
	terminal   bool
}

// newContainerFlags declares the flags. The command has rawCommand as its Raw.
func newContainerFlags(f *pflag.FlagSet) *containerFlags {
	c := &containerFlags{set: f}
	f.StringArrayVarP(&c.env, "env", "e", nil, "`V` NAME=VALUE, or NAME or N* as they are set here")
	f.StringVarP(&c.workdir, "workdir", "w", "", "`DIR` the working directory, in the image")
	f.StringVarP(&c.user, "user", "u", "", "`U` NAME or UID, and :GROUP, as the image has them")
	f.StringVar(&c.entrypoint, "entrypoint", "", "`C` in place of the image's: a word, or JSON; \"\" is none")
	f.StringVar(&c.hostname, "hostname", "", "`NAME` the container's name")
	f.Var(&c.network, "network", "`W` none (as it is without), or host: this machine's")
	f.StringArrayVarP(&c.volumes, "volume", "v", nil, "`V` SRC:DIR[:ro]: show SRC of this machine as DIR")
	f.BoolVar(&c.readOnly, "read-only", false, "the root file system is read-only")
	f.BoolVarP(&c.terminal, "tty", "t", false, "the command gets a terminal")
	cli.Note(f.Lookup("network"), cli.Words, networks...)
	return c
}

// options returns what the flags say, with args in place of the image's Cmd.
func (c *containerFlags) options(args []string) (*bundle.Options, error) {
	o := &bundle.Options{Args: args, User: c.user, Workdir: c.workdir, Hostname: c.hostname, Network: bundle.Network(c.network), ReadOnly: c.readOnly, Terminal: c.terminal}
	var err error
	if o.Env, err = variables(c.env, os.Environ()); err != nil {
		return nil, err
	}
	if c.set.Changed("entrypoint") {
		o.Entrypoint = entrypointWords(c.entrypoint)
	}
	if c.hostname != "" && !hostnamePattern.MatchString(c.hostname) {
		return nil, cli.Usagef("--hostname %s: letters, digits, hyphens and dots are possible, 64 of them at most", printable.Name(c.hostname))
	}
	for _, v := range c.volumes {
		m, err := volume(v)
		if err != nil {
			return nil, err
		}
		o.Binds = append(o.Binds, m)
	}
	return o, nil
}

var hostnamePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$`)

// variables returns the variables that values of -e mean: NAME=VALUE, and NAME and NAME*
// as environ has them. What is not set there is not set.
func variables(values, environ []string) ([]string, error) {
	var all []string
	for _, v := range values {
		name, _, has := strings.Cut(v, "=")
		prefix, many := strings.CutSuffix(name, "*")
		switch {
		case name == "":
			return nil, cli.Usagef("-e %s: the variable has no name", printable.Name(v))
		case has:
			all = append(all, v)
			continue
		}
		for _, here := range environ {
			if n, _, _ := strings.Cut(here, "="); n == name || many && strings.HasPrefix(n, prefix) {
				all = append(all, here)
			}
		}
	}
	return all, nil
}

// entrypointWords returns the words of an entrypoint: of a list in JSON, as podman takes
// it, or else one.
func entrypointWords(value string) []string {
	var words []string
	if json.Unmarshal([]byte(value), &words) == nil && words != nil {
		return words
	}
	return []string{value}
}

// networks are the values of --network.
var networks = []string{bundle.NetworkNone: "none", bundle.NetworkHost: "host"}

// A networkFlag is the value of --network.
type networkFlag bundle.Network

// String implements pflag.Value.
func (n *networkFlag) String() string { return networks[*n] }

// Type implements pflag.Value.
func (n *networkFlag) Type() string { return "network" }

// Set implements pflag.Value.
func (n *networkFlag) Set(s string) error {
	i := slices.Index(networks, s)
	if i < 0 {
		return errors.New("it is one of none and host: imgfs makes no networks")
	}
	*n = networkFlag(i)
	return nil
}

// volume returns the mount that a value of -v means.
func volume(value string) (specs.Mount, error) {
	parts := strings.Split(value, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return specs.Mount{}, cli.WithHint(cli.Usagef("-v %s: a path here and one in the container are needed", printable.Name(value)), "-v SRC:DIR, or -v SRC:DIR:ro")
	}
	if !strings.ContainsRune(parts[0], '/') && parts[0] != "." && parts[0] != ".." {
		return specs.Mount{}, cli.WithHint(cli.Usagef("-v %s: imgfs keeps no volumes, and a path has a slash", printable.Name(value)), "-v ./"+printable.Word(value))
	}
	if !path.IsAbs(parts[1]) || path.Clean(parts[1]) == "/" {
		return specs.Mount{}, cli.Usagef("-v %s: %s is no absolute path below /", printable.Name(value), printable.Name(parts[1]))
	}
	source, err := filepath.Abs(parts[0])
	if err != nil {
		return specs.Mount{}, err
	}
	if _, err := os.Stat(source); err != nil {
		return specs.Mount{}, err
	}
	m := specs.Mount{Destination: path.Clean(parts[1]), Type: "bind", Source: source, Options: []string{"rbind", "rprivate", "nosuid", "nodev"}}
	if len(parts) == 3 {
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "ro", "rw", "exec", "noexec":
				m.Options = append(m.Options, option)
			case "z", "Z": // labels of SELinux, which it goes without
			default:
				return specs.Mount{}, cli.Usagef("-v %s: %s is none of ro, rw, exec, noexec", printable.Name(value), printable.Name(option))
			}
		}
	}
	return m, nil
}

// rawCommand returns what divides arguments behind the first n that are no flags: what
// follows is the container's command, whose flags are its own. A -- before it is left out.
func rawCommand(n int) func(f *pflag.FlagSet, args []string) (flags, raw []string, err error) {
	return func(f *pflag.FlagSet, args []string) (flags, raw []string, err error) {
		words, ended := 0, false
		i := 0
		for ; i < len(args) && words < n; i++ {
			switch arg := args[i]; {
			case arg == "--" && !ended:
				ended = true
			case !ended && len(arg) > 1 && arg[0] == '-':
				if takesNext(f, arg) {
					i++
				}
			default:
				words++
			}
		}
		i = min(i, len(args))
		flags, raw = args[:i:i], args[i:]
		if !ended && len(raw) > 0 && raw[0] == "--" {
			raw = raw[1:]
		}
		return flags, raw, nil
	}
}

// takesNext reports whether the value of the flags in arg is the next argument.
func takesNext(f *pflag.FlagSet, arg string) bool {
	if name, ok := strings.CutPrefix(arg, "--"); ok {
		flag := f.Lookup(name) // with a value in it there is none
		return flag != nil && flag.NoOptDefVal == ""
	}
	for i := 1; i < len(arg); i++ {
		if flag := f.ShorthandLookup(arg[i : i+1]); flag == nil {
			return false
		} else if flag.NoOptDefVal == "" {
			return i == len(arg)-1
		}
	}
	return false
}

// containerHint returns what to type when an image cannot be run as asked, or "".
func containerHint(err *bundle.Error) string {
	switch err.Reason {
	case bundle.NoCommand:
		return "name one behind all other arguments, such as sh"
	case bundle.NotFound:
		return "imgfs find IMAGE -name NAME shows where a program is; --entrypoint names another one"
	case bundle.NotExecutable:
		return "imgfs ls -l IMAGE:/PATH shows what it is; --entrypoint names another one"
	case bundle.BadUser:
		return "-u UID[:GID], which are numbers, or -u 0; imgfs cat IMAGE:/etc/passwd shows who there is"
	case bundle.Unmapped:
		return "-u 0, which is you; more users are those that /etc/subuid and /etc/subgid give you"
	case bundle.BadWorkdir:
		return "-w DIR, a directory of the image, such as -w /"
	case bundle.BadPlatform:
		return "--platform OS/ARCH, if the image is there for this machine: imgfs inspect IMAGE; or install qemu-user-static"
	case bundle.BadVariable:
		return "-e NAME=VALUE sets another value"
	}
	return ""
}

// containerHabits are flags of docker run and podman run that are not here, and what to
// type for them.
var containerHabits = map[string]string{
	"--env-file": "-e NAME=VALUE, once for each", "--net": "--network {WORD}", "--mount": "-v SRC:DIR[:ro]", "--tmpfs": "-v SRC:DIR", "--volumes-from": "-v SRC:DIR",
	"-p": "--network host: imgfs forwards no ports", "--publish": "--network host: imgfs forwards no ports", "-P": "--network host: imgfs forwards no ports", "--publish-all": "--network host: imgfs forwards no ports",
	"--expose": "--network host: imgfs forwards no ports", "--dns": "--network host, with the DNS of this machine", "--add-host": "-v FILE:/etc/hosts",
	"--name": "--hostname {NAME}: a container has no other name", "--working-dir": "-w {DIR}", "--cwd": "-w {DIR}", "--terminal": "-t", "--readonly": "--read-only",
	"--arch": "--platform linux/{ARCH}", "--privileged": "imgfs mount IMAGE DIR, and chroot DIR", "--init": "leave it out: there is none",
}
