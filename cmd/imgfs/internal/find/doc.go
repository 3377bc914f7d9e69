// Package find looks for files of images as find of GNU findutils looks for files: it
// has its expressions, and in a pipe its output is the same byte for byte, but that
// files come in byte order.
//
//	e, err := find.Parse(args)
//	w := e.NewWalker(ctx, config)
//	err = w.Walk(find.Start{Typed: "/etc", Path: "/etc", Image: image})
//	err = w.Close()
//
// A file of an image has one time, which -atime and -ctime mean, too. There is nothing
// that runs programs, writes files, or removes any. Names of strangers never act on a
// terminal, and in a pipe come byte for byte.
package find
