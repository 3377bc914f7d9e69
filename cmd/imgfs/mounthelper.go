package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/spf13/pflag"
)

// helperNames are names by which mount(8) calls the program of a type of file system: as
// it is called for -t fuse.imgfs and -t imgfs.
var helperNames = []string{"mount.fuse.imgfs", "mount.imgfs"}

const helperSyntax = " IMAGE DIR [-sfnv] [-o OPTIONS]"

// Exit codes of a helper of mount(8).
const (
	helperUsage   = 1 // the invocation is wrong, or not permitted
	helperFailure = 32
)

// Flags of imgfs mount that its helper gives it.
const (
	helperFlag = "helper" // mount(8) has called it
	fakeFlag   = "fake"   // look whether it could be mounted
	sloppyFlag = "sloppy" // options that there are not mean nothing
)

// runHelper does what mount(8) calls a helper for, as "mount.TYPE SOURCE DIR [-sfnv] [-N
// NAMESPACE] [-o OPTIONS] [-t TYPE]", and returns an exit code as mount(8) has them.
func (e *env) runHelper(ctx context.Context, name string, args []string) int {
	words, as, err := helperArguments(name, args)
	if errors.Is(err, pflag.ErrHelp) {
		if err := e.Print("usage: " + name + helperSyntax + "\n\nmount(8) calls it, for mount -t and lines of fstab. OPTIONS: imgfs help mount\n"); err != nil {
			return helperFailure
		}
		return cli.ExitOK
	}
	if err != nil {
		e.Error(err)
		return helperUsage
	}
	code := 0
	if as != "" {
		code, err = runAs(ctx, as, words)
		if err != nil {
			e.Error(err)
			return helperUsage
		}
	} else {
		code = e.run(ctx, words)
	}
	switch code {
	case cli.ExitOK:
		return code
	case cli.ExitUsage:
		return helperUsage
	}
	return helperFailure
}

// helperArguments returns the command line of imgfs that a helper of mount(8) stands for,
// and the user to run it as, "" for this one.
func helperArguments(name string, args []string) (words []string, as string, err error) {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.Usage = func() {}
	sloppy, fake := f.BoolP(sloppyFlag, "s", false, ""), f.BoolP(fakeFlag, "f", false, "")
	verbose := f.BoolP("verbose", "v", false, "")
	for _, flag := range []string{"n", "r", "w"} { // as imgfs always does; mount(8) says it in -o
		f.BoolP(flag, flag, false, "")
	}
	namespace := f.StringP("namespace", "N", "", "")
	f.StringP("types", "t", "", "")
	lists := f.StringArrayP("options", "o", nil, "")
	usage := name + helperSyntax
	if err := f.Parse(args); err != nil {
		return nil, "", cli.WithHint(err, usage)
	}
	switch {
	case f.NArg() != 2:
		return nil, "", cli.WithHint(cli.Usagef("%s: an image and a directory are needed", name), usage)
	case f.Arg(1) == "none":
		return nil, "", cli.WithHint(cli.Usagef("%s: none is no directory", name), "imgfs mount "+printable.Word(f.Arg(0))+" makes one, and prints it")
	case *namespace != "":
		return nil, "", cli.WithHint(cli.Usagef("%s: -N: the mount namespace is that of the caller", name), "nsenter --mount="+printable.Word(*namespace)+" "+usage)
	}
	words = []string{"mount", "--" + helperFlag}
	for flag, on := range map[string]bool{sloppyFlag: *sloppy, fakeFlag: *fake, "verbose": *verbose} {
		if on {
			words = append(words, "--"+flag)
		}
	}
	options, as := helperOptions(strings.Split(strings.Join(*lists, ","), ","))
	if len(options) > 0 {
		words = append(words, "-o", strings.Join(options, ","))
	}
	return append(words, "--", f.Arg(0), f.Arg(1)), as, nil
}

// helperOptions leaves out options that mount(8) adds, or that are for others: rw, which
// it hands to every helper that was not asked for ro, and those by which it lets users
// mount.
func helperOptions(options []string) (kept []string, as string) {
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "", "rw", "user", "nouser", "users", "helper", "uhelper":
		case "setuid":
			as = value
		default:
			kept = append(kept, option)
		}
	}
	return kept, as
}

// askedToWrite reports whether mount(8), which has called this process, was told to mount
// for writing: it says rw to its helpers in any case.
func askedToWrite() bool {
	return askedFor("rw") || slices.ContainsFunc(callerWords(), func(word string) bool {
		return word == "-w" || word == "--rw" || word == "--read-write"
	})
}

// askedFor reports whether the command line of mount(8), which has called this process, has
// an option of -o.
func askedFor(option string) bool {
	words := callerWords()
	for i, word := range words[min(1, len(words)):] {
		list := strings.TrimPrefix(strings.TrimPrefix(word, "--options="), "-o")
		before := words[i]
		if (list != word || before == "-o" || before == "--options") && slices.Contains(strings.Split(list, ","), option) {
			return true
		}
	}
	return false
}

// callerWords is the command line of mount(8), if that has called this process.
func callerWords() []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", os.Getppid()))
	words := strings.Split(string(text), "\x00")
	if err != nil || filepath.Base(words[0]) != "mount" {
		return nil
	}
	return words
}

// askedForAll reports whether mount(8), which has called this process, mounts what is in
// fstab and is not mounted yet: mount -a.
func askedForAll() bool {
	return slices.ContainsFunc(callerWords(), func(word string) bool {
		return word == "--all" || len(word) > 1 && word[0] == '-' && word[1] != '-' && strings.Contains(word, "a")
	})
}

// runAs runs imgfs as another user, as the option setuid of mount.fuse has it: the mount is
// that user's.
func runAs(ctx context.Context, name string, words []string) (code int, err error) {
	if os.Geteuid() != 0 {
		return 0, cli.WithHint(cli.Usagef("mount: the option setuid is for root"), "leave it out: the mount is yours")
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return 0, cli.Usagef("mount: the option setuid: there is no user %s", printable.Name(name))
		}
	}
	uid, gid, groups, err := groupsOf(u)
	if err != nil {
		return 0, err
	}
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, exe, words...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username, "XDG_RUNTIME_DIR=", "XDG_CACHE_HOME=", "XDG_CONFIG_HOME=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	err = cmd.Run()
	var status *exec.ExitError
	if errors.As(err, &status) {
		return max(status.ExitCode(), cli.ExitFailure), nil
	}
	return 0, err
}

// groupsOf returns the numbers of a user and of the groups that it is in.
func groupsOf(u *user.User) (uid, gid uint32, groups []uint32, err error) {
	number := func(text string) uint32 {
		n, bad := strconv.ParseUint(text, 10, 32)
		err = errors.Join(err, bad)
		return uint32(n)
	}
	uid, gid = number(u.Uid), number(u.Gid)
	ids, bad := u.GroupIds()
	err = errors.Join(err, bad)
	for _, id := range ids {
		groups = append(groups, number(id))
	}
	return uid, gid, groups, err
}
