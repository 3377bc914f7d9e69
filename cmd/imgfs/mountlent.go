package main

import (
	"context"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/spf13/pflag"
)

// A lentMount is imgfs mount as another command uses it, which takes some of its flags.
type lentMount struct {
	env    *env
	flags  *pflag.FlagSet  // of the other command
	ours   map[string]bool // its own
	theirs *pflag.FlagSet  // of mount
	action cli.Action
}

// lendMount adds flags of imgfs mount to those of another command, which has declared its own
// before. Help lists none of them, and names that mount does not have are left out.
func lendMount(e *env, flags *pflag.FlagSet, names []string) *lentMount {
	l := &lentMount{env: e, flags: flags, ours: map[string]bool{}, theirs: pflag.NewFlagSet("mount", pflag.ContinueOnError)}
	flags.VisitAll(func(flag *pflag.Flag) { l.ours[flag.Name] = true })
	l.action = mountCommand(e).Setup(l.theirs)
	for _, name := range names {
		flag := l.theirs.Lookup(name)
		if flag == nil {
			continue
		}
		flag.Hidden = true
		cli.Note(flag, cli.Known)
		flags.AddFlag(flag)
	}
	return l
}

// set sets a flag of mount, whether the other command takes it or not.
func (l *lentMount) set(name, value string) error { return l.theirs.Set(name, value) }

// mount mounts an image on a directory.
func (l *lentMount) mount(ctx context.Context, img, dir string) error {
	l.flags.VisitAll(func(flag *pflag.Flag) { // those of all commands
		if !l.ours[flag.Name] && l.theirs.Lookup(flag.Name) == nil {
			l.theirs.AddFlag(flag)
		}
	})
	return l.action(ctx, []string{img, dir})
}

// setNetwork has an image be opened in this process as the mount opens it.
func (l *lentMount) setNetwork() error {
	f := pflag.NewFlagSet("network", pflag.ContinueOnError)
	set := networkFlags(f)
	var err error
	f.VisitAll(func(flag *pflag.Flag) {
		if given := l.flags.Lookup(flag.Name); given.Changed && err == nil {
			err = f.Set(flag.Name, given.Value.String())
		}
	})
	if err != nil {
		return err
	}
	return set(&l.env.network)
}
