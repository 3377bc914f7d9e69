package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// pushImages puts two releases of the Go sources into the registry, which have their
// base in common.
func pushImages(registry *registrytest.Server, dir string) error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	goroot := os.DirFS(strings.TrimSpace(string(out)))
	base := func(a *labimage.Archive) error { return copyTree(a, goroot, "src") }
	for tag, top := range map[string]labimage.Layer{"1.26": release, "1.27": nextRelease} {
		layout := filepath.Join(dir, "layout-"+tag)
		desc, err := labimage.Write(layout, base, top)
		if err != nil {
			return err
		}
		if err := registry.PushLayout(layout, "go"); err != nil {
			return err
		}
		registry.Tag("go", tag, desc.Digest)
	}
	return nil
}

// copyTree writes the Go files below a directory, and what is in assembler.
func copyTree(a *labimage.Archive, root fs.FS, dir string) error {
	return fs.WalkDir(root, dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.IsDir():
			return a.Dir(name)
		case !d.Type().IsRegular() || !strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, ".s"):
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		return a.File(name, string(text))
	})
}

func release(a *labimage.Archive) error { return a.File("VERSION", "go1.26\n") }

// nextRelease adds, changes and removes something.
func nextRelease(a *labimage.Archive) error {
	if err := a.File("VERSION", "go1.27 and more\n"); err != nil {
		return err
	}
	if err := a.Dir("src/encoding/cbor"); err != nil {
		return err
	}
	if err := a.File("src/encoding/cbor/cbor.go", "package cbor\n"); err != nil {
		return err
	}
	if err := a.File("src/errors/errors.go", "package errors\n", labimage.Mode(0o600)); err != nil {
		return err
	}
	return a.Whiteout("src/crypto/rc4")
}
