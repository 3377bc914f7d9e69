// Package ls lists files of images as ls of GNU coreutils lists files: it has the same
// flags, and in the locale C its output is the same byte for byte as that of ls in an
// unpacked image, but for what an image does not have.
//
//	opts := ls.NewOptions(flags)
//	l := opts.NewLister(ctx, config)
//	err := l.Add(ls.Argument{Typed: "/etc", Path: "/etc", Image: image})
//	err = l.Print(1)
//
// Names that strangers have written never act on a terminal, whatever the flags say.
// In a pipe they come byte for byte. Names of users and groups are the image's own, and
// are shown only if they do nothing anywhere.
package ls
