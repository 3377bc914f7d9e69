package bundle

import (
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultCapabilities returns the capabilities that root has in a container of docker's.
// The slice is the caller's.
func DefaultCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// capabilities returns those of the container's process. Another user than root has none,
// but what programs with file capabilities may give it.
func capabilities(o *Options, uid uint32) *specs.LinuxCapabilities {
	all := o.Capabilities
	if all == nil {
		all = DefaultCapabilities()
	}
	c := &specs.LinuxCapabilities{Bounding: all}
	if uid == 0 {
		c.Effective, c.Permitted = slices.Clone(all), slices.Clone(all)
	}
	return c
}

// maskedPaths are what the container must not see: the union of docker's and podman's.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
	"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block", "/sys/devices/virtual/powercap",
	"/sys/firmware", "/sys/fs/selinux",
}

// readonlyPaths are what it must not change.
var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// mappings returns the ids of a rootless container.
func (o *Options) mappings() (uids, gids []specs.LinuxIDMapping) {
	uids, gids = o.UIDs, o.GIDs
	if uids == nil {
		uids = []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}}
	}
	if gids == nil {
		gids = []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}}
	}
	return uids, gids
}

// linux returns the part of the config that is of Linux alone.
func linux(o *Options) *specs.Linux {
	l := &specs.Linux{MaskedPaths: slices.Clone(maskedPaths), ReadonlyPaths: slices.Clone(readonlyPaths)}
	kinds := []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace}
	if o.Network == NetworkNone {
		kinds = append(kinds, specs.NetworkNamespace)
	}
	if cgroupsAreUnified() {
		kinds = append(kinds, specs.CgroupNamespace)
	}
	switch {
	case !o.Rootless: // runtimes add the devices that every container has
		l.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	case !o.Nested:
		kinds = append(kinds, specs.UserNamespace)
		l.UIDMappings, l.GIDMappings = o.mappings()
	}
	for _, k := range kinds {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: k})
	}
	return l
}
