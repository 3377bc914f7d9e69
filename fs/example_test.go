package fs_test

import (
	"context"
	"fmt"
	iofs "io/fs"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/registry"
)

// A scanner needs no mount: the tree of an image is an io/fs.FS.
func Example() {
	ctx := context.Background()
	list := func(dir, image string) error {
		ref, err := remote.ParseReference(image)
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
		tree, err := fs.New(ctx, img, &fs.Options{Cache: disk})
		if err != nil {
			return err
		}
		defer tree.Close()
		return iofs.WalkDir(tree.WithContext(ctx), ".", func(name string, _ iofs.DirEntry, err error) error {
			fmt.Println(name)
			return err
		})
	}
	_ = list // list("/var/cache/scanner", "fedora:latest")
}
