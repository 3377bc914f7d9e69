package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/localname"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// optionFlag is -o, whose value is a list as mount(8) has it.
const optionFlag = "options"

// idleOptions are options of mount(8) and of FUSE that a mount of imgfs has anyway, or
// that say something to programs other than the file system.
var idleOptions = []string{
	"ro", "read-only", "exec", "relatime", "norelatime", "noatime", "atime", "nodiratime", "diratime", "strictatime", "nostrictatime", "lazytime", "nolazytime",
	"defaults", "async", "sync", "dirsync", "silent", "loud", "default_permissions",
	"_netdev", "nofail", "auto", "noauto", "user", "nouser", "users", "owner", "group",
}

// optionFlags are flags of imgfs mount that help leaves to -o, and to docs/usage.md.
var optionFlags = []string{noExecFlag, suidFlag, devFlag, layersFlag, engineFlag, xattrsFlag, exportFlag}

// mountOptions are the options that have another name than the flag of imgfs mount, and
// the flag with its value.
var mountOptions = map[string][2]string{
	"allow_other": {"allow-other", "true"},
	"noexec":      {noExecFlag, "true"},
	"nosuid":      {suidFlag, "false"},
	"nodev":       {devFlag, "false"},
	"allow_suid":  {suidFlag, "true"}, // mount(8) does not hand on what is its default
	"allow_dev":   {devFlag, "true"},
	"norecover":   {noRecoverFlag, "true"},
	"quiet":       {"quiet", "true"},
}

// refusedOptions are options that no mount of imgfs can have, and what to do instead.
var refusedOptions = map[string]string{
	"rw":         "a mount is read-only; with --overlay CHANGES it can be written, and what is written goes to the directory CHANGES",
	"remount":    "unmount it and mount it again: imgfs umount DIR",
	"allow_root": "allow_other lets root in, and everybody else",
	"bind":       "imgfs mounts images; mount --bind OLD NEW mounts a directory in another place",
	"rbind":      "imgfs mounts images; mount --rbind OLD NEW mounts a directory in another place",
	"move":       "mount --move OLD NEW moves a mount",
	"uid":        ownersHint,
	"gid":        ownersHint,
	"umask":      ownersHint,
	"fmask":      ownersHint,
	"dmask":      ownersHint,
	"idmap":      ownersHint,
	"loop":       "imgfs mounts images; mount -o loop FILE DIR mounts a file system in a file",
}

// ownersHint is about options that change owners and modes.
const ownersHint = "owners and modes are those of the image; --allow-other lets others use what the modes allow them"

// setOptions sets the flags that a list of options as in mount(8) means. The name of a
// flag is an option: platform=linux/arm64, cache-dir=/srv/cache, offline.
func (m *mounter) setOptions(e *env, f *pflag.FlagSet, list string) error {
	for option := range strings.SplitSeq(list, ",") {
		name, value, has := strings.Cut(strings.TrimSpace(option), "=")
		if (name == "rw" || name == "ro") && strings.Contains(","+list, ","+overlayFlag+"=") {
			name = map[string]string{"rw": "read-write", "ro": "read-only"}[name]
			if err := f.Set(name, "true"); err != nil {
				return err
			}
			continue
		}
		switch {
		case name == "" && !has, slices.Contains(idleOptions, name), strings.HasPrefix(name, "x-"), name == "comment":
			continue
		case m.helper && slices.Contains(rightsOptions, name) && os.Geteuid() != 0: // of a line that root has written
			e.Warnf("the option %s does nothing: the mount is not root's", name)
			continue
		case m.sloppy && !knownOption(f, name):
			continue
		case refusedOptions[name] != "":
			return cli.WithHint(cli.Usagef("mount: the option %s is not possible", name), refusedOptions[name])
		}
		if other, ok := mountOptions[name]; ok {
			name, value, has = other[0], other[1], true
		}
		if err := setOption(f, name, value, has); err != nil {
			return err
		}
	}
	return nil
}

// setOption sets one flag. Values that it does not take are as on the command line.
func setOption(f *pflag.FlagSet, name, value string, has bool) error {
	if !knownOption(f, name) {
		return unknownOption(f, name)
	}
	flag := f.Lookup(optionName(name))
	if !has {
		if value = flag.NoOptDefVal; value == "" {
			return cli.Usagef("mount: the option %s needs a value: %s=...", name, name)
		}
	}
	if err := f.Set(flag.Name, value); err != nil {
		return cli.Usagef("mount: the option %s: %s", name, cli.Describe(err))
	}
	return nil
}

// optionName is the name of the flag that an option sets.
func optionName(option string) string { return strings.ReplaceAll(option, "_", "-") }

// knownOption reports whether an option sets a flag.
func knownOption(f *pflag.FlagSet, name string) bool {
	flag := f.Lookup(optionName(name))
	return flag != nil && isOption(flag) || mountOptions[name] != [2]string{}
}

// isOption reports whether a flag may be in the list of -o, and be proposed for it.
func isOption(flag *pflag.Flag) bool {
	return flag.Name != optionFlag && (!flag.Hidden || slices.Contains(optionFlags, flag.Name))
}

// unknownOption refuses an option, and names one that may have been meant.
func unknownOption(f *pflag.FlagSet, name string) error {
	err := cli.Usagef("mount: there is no option %s", printable.Name(name))
	if looksLikeImage(name) || localname.IsPath(name) { // as behind -ro
		return cli.WithHint(err, "a list follows -o: imgfs mount -o ro IMAGE DIR")
	}
	spelled := func(flag string) string { return flag }
	if !strings.Contains(name, "-") { // as mount(8) writes them
		spelled = func(flag string) string { return strings.ReplaceAll(flag, "-", "_") }
	}
	known := slices.Clone(idleOptions)
	for option := range mountOptions {
		known = append(known, option)
	}
	f.VisitAll(func(flag *pflag.Flag) {
		if isOption(flag) {
			known = append(known, spelled(flag.Name))
		}
	})
	slices.Sort(known)
	known = slices.Compact(known)
	if near := cli.Nearest(name, known); len(near) > 0 {
		return cli.WithHint(err, "-o "+near[0])
	}
	return cli.WithHint(err, "-o takes ro, allow_other, noexec, suid, and flags without their hyphens, as in -o platform=linux/arm64,offline; imgfs help mount")
}

// habitFlags declares the flags of mount(8) that change nothing here, or cannot be. check
// refuses those that ask for something that is not there.
func habitFlags(f *pflag.FlagSet) (check func() error) {
	readOnly := f.BoolP("read-only", "r", false, "")
	write := f.BoolP("read-write", "w", false, "")
	rw := f.Bool("rw", false, "")
	kind := f.StringP("types", "t", "", "")
	noTable := f.BoolP("no-mtab", "n", false, "")
	for _, name := range []string{"read-only", "read-write", "rw", "types", "no-mtab"} {
		f.Lookup(name).Hidden = true
	}
	return func() error {
		_ = noTable // as it always is
		overlay := f.Changed(overlayFlag)
		switch {
		case overlay && *readOnly:
			return cli.WithHint(cli.Usagef("mount: --%s is for writing, and ro is not", overlayFlag), "leave out one of them")
		case !overlay && (*write || *rw):
			return cli.WithHint(cli.Usagef("mount: what is mounted cannot be written"), refusedOptions["rw"])
		case !f.Changed("types"), slices.Contains([]string{"imgfs", "fuse.imgfs", "fuse", "auto"}, *kind):
			return nil
		}
		return cli.WithHint(cli.Usagef("mount: imgfs mounts images, and nothing of type %s", printable.Name(*kind)), fmt.Sprintf("mount -t %s ...", printable.Word(*kind)))
	}
}

// mountHabits are flags of mount(8) that there are not, and what to type.
var mountHabits = map[string]string{
	"--bind": refusedOptions["bind"], "-B": refusedOptions["bind"], "--rbind": refusedOptions["rbind"], "-R": refusedOptions["rbind"],
	"--move": refusedOptions["move"], "-M": refusedOptions["move"], "--all": "one image at a time", "-a": "one image at a time", "--source": "imgfs mount IMAGE DIR",
	"--target": "imgfs mount IMAGE DIR", "--mkdir": "leave out DIR, and imgfs makes a directory", "-m": "leave out DIR, and imgfs makes a directory",
	"-d": "leave it out: a process in the background serves the mount unless -f is given", "--daemon": "leave it out: a process in the background serves the mount unless -f is given",
	"--detach": "leave it out: a process in the background serves the mount unless -f is given", "--background": "leave it out: a process in the background serves the mount unless -f is given",
	"--volume": "imgfs mount IMAGE DIR", "--mount": "imgfs mount IMAGE DIR", "--name": "imgfs mount IMAGE DIR", "--json": "imgfs stats --json DIR, once it is mounted", "--help-all": "imgfs help mount; imgfs help",
	"--readonly": "leave it out: a mount is read-only", "--ro": "leave it out: a mount is read-only", "--fg": "--foreground",
	"--sync": "leave it out: a mount is read-only",
}
