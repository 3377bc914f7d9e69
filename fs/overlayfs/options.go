package overlayfs

// A Kind is a way to mount an overlay.
type Kind int

const (
	// Auto is Kernel where this process may mount that on this Upper, else Fuse.
	Auto Kind = iota
	// Kernel is the kernel's overlayfs: for root, and for who has CAP_SYS_ADMIN in a
	// user namespace of its own, where it keeps its notes in attributes "user.*"
	// (the option userxattr).
	Kernel
	// Fuse is the program fuse-overlayfs.
	Fuse
)

// Options say how to mount. The zero value, and nil, is an overlay in which setuid bits
// and devices have an effect, as on a disk.
type Options struct {
	// Source is shown as the device of a kernel's overlay; that of Fuse is the lower
	// directory. Default "overlay".
	Source string
	Kind   Kind
	// NoSuid, NoDev and NoExec are those of mount(8). Overlays of Fuse have always
	// NoSuid and NoDev.
	NoSuid, NoDev, NoExec bool
	// AllowOther lets other users into an overlay of Fuse, as allow_other of FUSE
	// does. One of the kernel lets them do what the modes allow anyway.
	AllowOther bool
	// Image and Manifest name what is mounted below, to be remembered with the Upper:
	// see [Upper.Image]. Default: nothing is remembered.
	Image, Manifest string

	oldAPI bool // mount(2) also where fsopen(2) works
}

func (o *Options) source() string {
	if o.Source == "" {
		return "overlay"
	}
	return o.Source
}
