// Package tree prints files of images as tree(1) of Steve Baker does: with the flags that
// people type, in a pipe the output is the same byte for byte.
//
//	opts := tree.NewOptions(flags)
//	p := opts.NewPrinter(ctx, config)
//	err := p.Print(tree.Root{Typed: "/etc", Path: "/etc", Image: image})
//	err = p.Close()
//
// Names of strangers never act on a terminal, and without -N nowhere.
package tree
