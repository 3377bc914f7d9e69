package image_test

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// A scanner needs no mount: the tree of an image is an io/fs.FS.
func Example() {
	dir, name := exampleImage()
	defer os.RemoveAll(dir)

	ctx := context.Background()
	img, err := image.Open(ctx, name, &image.Options{CacheDir: filepath.Join(dir, "cache")})
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	err = iofs.WalkDir(img.FS(ctx), ".", func(name string, _ iofs.DirEntry, err error) error {
		fmt.Println(name)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// .
	// etc
	// etc/motd
	// etc/os-release
}

// exampleImage makes an image of two layers, the upper one of which removes a
// file, in an OCI layout below a new directory.
func exampleImage() (dir, name string) {
	dir, err := os.MkdirTemp("", "imgfs-example")
	if err != nil {
		log.Fatal(err)
	}
	layout := filepath.Join(dir, "layout")
	_, err = labimage.Write(layout,
		func(a *labimage.Archive) error {
			return errors.Join(a.File("etc/os-release", "NAME=Example\n"), a.File("etc/old", ""))
		},
		func(a *labimage.Archive) error {
			return errors.Join(a.Whiteout("etc/old"), a.File("etc/motd", "hello\n"))
		})
	if err != nil {
		log.Fatal(err)
	}
	return dir, "oci:" + layout
}
