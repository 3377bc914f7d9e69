package image_test

import (
	"context"
	"fmt"
	iofs "io/fs"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry"
)

// A scanner needs no mount: the tree of an image is an io/fs.FS.
func Example() {
	ctx := context.Background()
	list := func(dir, name string) error {
		ref, err := remote.ParseReference(name)
		if err != nil {
			return err
		}
		disk, err := cache.Open(dir, nil)
		if err != nil {
			return err
		}
		defer disk.Close()
		img, err := remote.Open(ctx, registry.New(nil).Repository(ref), "")
		if err != nil {
			return err
		}
		tree, err := image.New(ctx, img, &image.Options{Cache: disk})
		if err != nil {
			return err
		}
		defer tree.Close()
		return iofs.WalkDir(tree.FS(ctx), ".", func(name string, _ iofs.DirEntry, err error) error {
			fmt.Println(name)
			return err
		})
	}
	_ = list // list("/var/cache/scanner", "fedora:latest")
}
