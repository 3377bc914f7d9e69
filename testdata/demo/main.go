// Command demo shows imgfs at work without a network: it packs the source tree
// of the Go release in use as an image of three layers, serves it from a
// registry on loopback, mounts it with the imgfs that its argument names,
// looks around in it, and says what was fetched of how much.
//
//	go run ./testdata/demo bin/imgfs
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: demo IMGFS")
	}
	imgfs, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "imgfs-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Println("# packing the Go source tree as an image of three layers")
	layout := filepath.Join(dir, "layout")
	if err := labimage.GoTree(layout); err != nil {
		return err
	}
	registry := registrytest.New(nil, nil)
	defer registry.Close()
	if err := registry.PushLayout(layout, "demo/go"); err != nil {
		return err
	}
	d := &demo{
		ctx: ctx, imgfs: imgfs, registry: registry, cache: filepath.Join(dir, "cache"), mnt: filepath.Join(dir, "mnt"),
		image: registry.Host() + "/demo/go:" + labimage.Tag,
	}
	if err := os.Mkdir(d.mnt, 0o755); err != nil {
		return err
	}
	if d.total, err = treeSize(filepath.Join(layout, "blobs")); err != nil {
		return err
	}
	return d.show()
}

// A demo runs commands and prints them as a shell would show them.
type demo struct {
	ctx      context.Context
	imgfs    string
	registry *registrytest.Server
	cache    string
	mnt      string
	image    string
	total    int64 // bytes of the image in the registry
}

func (d *demo) show() error {
	src := filepath.Join(d.mnt, labimage.GoSrc)
	fmt.Println("\n# the first mount reads every layer once and keeps an index of it")
	err := d.mounted(func() error {
		return errors.Join(
			d.sh("ls "+d.mnt+"/usr/local/go", "ls", filepath.Join(d.mnt, "usr/local/go")),
			d.sh("find "+src+" -type f | wc -l", "sh", "-c", "find '"+src+"' -type f | wc -l"),
			d.sh("grep -rl NewReaderDict "+src+"/compress", "grep", "-rl", "NewReaderDict", src+"/compress"),
			d.sh("head -n 3 "+src+"/fmt/print.go", "head", "-n", "3", src+"/fmt/print.go"),
		)
	})
	if err != nil {
		return err
	}
	fmt.Println("\n# with the indexes kept, but none of the image's bytes, only what is read is fetched")
	if err := os.RemoveAll(filepath.Join(d.cache, "blobs")); err != nil {
		return err
	}
	return d.mounted(func() error {
		return errors.Join(
			d.sh("find "+src+" | wc -l", "sh", "-c", "find '"+src+"' | wc -l"),
			d.sh("sha256sum "+src+"/net/http/server.go", "sha256sum", src+"/net/http/server.go"),
		)
	})
}

// mounted mounts the image, has something done with it, unmounts it, and says
// what the registry was asked for.
func (d *demo) mounted(do func() error) error {
	d.registry.Forget()
	begun := time.Now()
	if err := d.sh("imgfs mount "+d.image+" "+d.mnt, d.imgfs, "mount", "--cache-dir", d.cache, d.image, d.mnt); err != nil {
		return err
	}
	ready := time.Since(begun)
	err := do()
	err = errors.Join(err, d.sh("imgfs umount "+d.mnt, d.imgfs, "umount", d.mnt))
	fetched := d.registry.Bytes(registrytest.Blob)
	fmt.Printf("# ready in %.2f s; fetched %d of %d bytes (%.1f %%) in %d requests for blobs\n",
		ready.Seconds(), fetched, d.total, 100*float64(fetched)/float64(d.total), d.registry.Count(registrytest.Blob))
	return err
}

// sh runs a command, shown as text.
func (d *demo) sh(text string, args ...string) error {
	fmt.Println("$", text)
	cmd := exec.CommandContext(d.ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// treeSize adds up the files below a directory.
func treeSize(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
