package main

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/fusefs"

	"github.com/spf13/pflag"
)

// TestHabits: what is said to type in place of other programs' commands and flags is
// there.
func TestHabits(t *testing.T) {
	p := newEnv(nil, nil).program()
	flags := map[string]bool{}
	commands := map[string]bool{"help": true}
	gather := func(f *pflag.FlagSet) {
		f.VisitAll(func(flag *pflag.Flag) { flags["--"+flag.Name] = true })
	}
	global := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, declare := range p.Flags {
		declare(global)
	}
	gather(global)
	for _, c := range p.Commands {
		commands[c.Name] = true
		for _, sub := range c.Commands {
			commands[c.Name+" "+sub.Name] = true
		}
		if c.Setup != nil {
			f := pflag.NewFlagSet("", pflag.ContinueOnError)
			c.Setup(f)
			gather(f)
		}
	}
	command, flag := regexp.MustCompile(`^imgfs ((?:cache )?[a-z]+)`), regexp.MustCompile(`--[a-z-]+`)
	check := func(typed, hint string) {
		if strings.HasPrefix(hint, "podman run ") || strings.HasPrefix(hint, "systemd-run ") {
			return
		}
		if strings.HasPrefix(hint, "mount --") || strings.HasPrefix(hint, "imgfs mounts images;") || strings.HasPrefix(hint, "imgfs checks no ") {
			return // what another program, or none, does
		}
		for _, m := range command.FindAllStringSubmatch(hint, -1) {
			if !commands[m[1]] {
				t.Errorf("for %s there is the hint %q, and no such command", typed, hint)
			}
		}
		for _, name := range flag.FindAllString(hint, -1) {
			if !flags[name] {
				t.Errorf("for %s there is the hint %q, and no such flag", typed, hint)
			}
		}
	}
	for typed, hint := range p.Others {
		check(typed, hint)
		if commands[typed] {
			t.Errorf("%s is a command of imgfs", typed)
		}
	}
	for _, c := range p.Commands {
		for typed, hint := range c.Others {
			check(typed, hint)
		}
		for typed, hint := range c.OtherFlags {
			check(typed, hint)
		}
	}
	for typed, hint := range p.OtherFlags {
		check(typed, hint)
		if flags[typed] {
			t.Errorf("%s is a flag of imgfs", typed)
		}
	}
}

// TestHintMtab: where /etc/mtab is missing, as in some chroots, fusermount3 says so and
// not what helps.
func TestHintMtab(t *testing.T) {
	err := &fusefs.Error{Op: "unmount", Dir: "/mnt", Err: errors.New("fusermount3: failed to open /etc/mtab: No such file or directory")}
	if hint := hintFor(err); !strings.Contains(hint, "ln -s /proc/self/mounts /etc/mtab") {
		t.Errorf("the hint is %q", hint)
	}
}
