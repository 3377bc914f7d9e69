package main

import (
	"errors"
	"os"
	"strconv"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/spf13/pflag"
)

// Flags of imgfs mount for container engines, which mount a chain of layers and put
// overlays on it.
const (
	layersFlag = "layers"
	// These give setuid bits, file capabilities and devices of an image the effect that
	// they have on a disk.
	suidFlag = "suid"
	devFlag  = "dev"
	// engineFlag says that an engine puts overlays on the mount: see fusefs.Options.Engine.
	engineFlag = "engine"
	// xattrsFlag has such a mount answer for attributes that no file has.
	xattrsFlag = "xattrs"
	// exportFlag is for NFS: see fusefs.Options.Export.
	exportFlag = "export"
)

// rightsOptions are names by which -o sets suidFlag and devFlag.
var rightsOptions = []string{suidFlag, devFlag, "allow_suid", "allow_dev"}

// warnKept says of options that mount(8), which has called this process, keeps to itself.
func (m *mounter) warnKept(e *env) {
	for flag, has := range map[string]bool{suidFlag: m.suid, devFlag: m.dev} {
		if !has && askedFor(flag) {
			e.Warnf("mount(8) keeps the option %s to itself: what it is for is allow_%s", flag, flag)
		}
	}
}

// declareEngines declares the flags, which help leaves to -o.
func (m *mounter) declareEngines(f *pflag.FlagSet) {
	f.Var(&m.layers, layersFlag, "")
	f.BoolVar(&m.suid, suidFlag, false, "")
	f.BoolVar(&m.dev, devFlag, false, "")
	f.BoolVar(&m.engine, engineFlag, false, "")
	f.BoolVar(&m.xattrs, xattrsFlag, false, "")
	f.BoolVar(&m.export, exportFlag, false, "")
}

// A layerCount is the value of --layers: how many layers there are to be, the base and
// those above it.
type layerCount int

// String implements pflag.Value.
func (n *layerCount) String() string {
	if *n == 0 {
		return ""
	}
	return strconv.Itoa(int(*n))
}

// Type implements pflag.Value.
func (n *layerCount) Type() string { return "int" }

// Set implements pflag.Value.
func (n *layerCount) Set(s string) error {
	count, err := strconv.ParseUint(s, 10, 16)
	if err != nil || count == 0 {
		return errors.New("it is a number of layers, from 1 for the base alone")
	}
	*n = layerCount(count)
	return nil
}

// mayHaveRights refuses --suid and --dev where the kernel, or fusermount3, would leave them
// out without a word.
func (m *mounter) mayHaveRights() error {
	flag, shown := suidFlag, "setuid bits and file capabilities are shown, and have no effect"
	if !m.suid {
		flag, shown = devFlag, "devices are shown, and cannot be opened"
	}
	switch {
	case !m.suid && !m.dev:
		return nil
	case os.Geteuid() != 0:
		return cli.WithHint(cli.Usagef("mount: --%s is for root", flag), "leave it out: "+shown)
	case m.dev && fusefs.InUserNamespace():
		return cli.WithHint(cli.Usagef("mount: --%s has no effect in a user namespace: no device of its mounts can be opened", devFlag), "leave it out")
	}
	return nil
}
