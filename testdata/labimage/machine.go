package labimage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Copies returns a layer of programs of this machine (paths) and what they are linked to.
func Copies(programs ...string) Layer {
	return func(a *Archive) error {
		w := &copier{Archive: a, done: map[string]bool{"": true}}
		return errors.Join(w.skeleton(), w.programs(programs, nil))
	}
}

// Python writes the Python of this machine (/usr/bin/python3) with its modules, and with what
// they are linked to, where the machine has them.
func Python(a *Archive) error {
	out, err := exec.Command("/usr/bin/python3", "-c", "import sys, sysconfig; print(sys.executable); print(sysconfig.get_path('stdlib'))").Output()
	if err != nil {
		return fmt.Errorf("python3: %w", err)
	}
	program, modules, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if program, err = filepath.EvalSymlinks(program); err != nil {
		return err
	}
	extensions, err := filepath.Glob(filepath.Join(modules, "lib-dynload", "*.so"))
	if err != nil {
		return err
	}
	w := &copier{Archive: a, done: map[string]bool{"": true}}
	err = errors.Join(w.skeleton(), w.programs([]string{program}, extensions))
	if program != "/usr/bin/python3" {
		err = errors.Join(err, a.Symlink("usr/bin/python3", program))
	}
	return errors.Join(err, w.tree(modules, strings.TrimPrefix(modules, "/")))
}

// GoToolchain writes the Go release in use (go env GOROOT) to usr/local/go, and a program to
// compile with it to src/hello.go.
func GoToolchain(a *Archive) error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	root, err := filepath.EvalSymlinks(strings.TrimSpace(string(out)))
	if err != nil {
		return err
	}
	w := &copier{Archive: a, done: map[string]bool{"": true}}
	const hello = "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"hello, world\") }\n"
	return errors.Join(w.skeleton(), a.Dir("src"), a.File("src/hello.go", hello), w.dir("usr/local"), w.tree(root, "usr/local/go"))
}

// A copier writes files of this machine, and the directories above them.
type copier struct {
	*Archive
	done map[string]bool // by name, "" for the root
}

// skeleton writes what programs expect to be there, with the links of a merged /usr.
func (c *copier) skeleton() error {
	var err error
	for _, name := range []string{"dev", "etc", "proc", "tmp", "usr", "usr/bin", "usr/lib", "usr/lib64"} {
		err = errors.Join(err, c.dir(name))
	}
	for _, name := range []string{"bin", "lib", "lib64"} {
		c.done[name] = true
		err = errors.Join(err, c.Symlink(name, "usr/"+name))
	}
	return err
}

// dir writes a directory unless it is there.
func (c *copier) dir(name string) error {
	if name == "." || c.done[name] {
		return nil
	}
	c.done[name] = true
	return errors.Join(c.dir(path.Dir(name)), c.Dir(name))
}

// programs writes programs, and what they and some modules are linked to.
func (c *copier) programs(programs, modules []string) error {
	files, err := linkedTo(slices.Concat(programs, modules))
	if err != nil {
		return err
	}
	for _, f := range slices.Concat(programs, files) {
		err = errors.Join(err, c.file(f))
	}
	return err
}

// file writes a file where it is, but for symlinks among the directories above it.
func (c *copier) file(disk string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(disk))
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(filepath.Join(dir, filepath.Base(disk)), "/")
	if c.done[name] {
		return nil
	}
	c.done[name] = true
	return errors.Join(c.dir(path.Dir(name)), c.program(disk, name))
}

// tree writes all that is below a directory, in the order of a walk.
func (c *copier) tree(disk, name string) error {
	if err := c.dir(path.Dir(name)); err != nil {
		return err
	}
	return filepath.WalkDir(disk, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(disk, p)
		if err != nil {
			return err
		}
		s := source{name: path.Join(name, filepath.ToSlash(rel)), disk: p, mtime: epoch}
		if s.mode = d.Type(); s.mode.Type() == fs.ModeSymlink {
			if s.target, err = os.Readlink(p); err != nil {
				return err
			}
			if _, err := os.Stat(p); err != nil {
				return nil // it leads to what is not installed
			}
		}
		if !slices.Contains([]fs.FileMode{0, fs.ModeDir, fs.ModeSymlink}, s.mode.Type()) || c.done[s.name] {
			return nil
		}
		c.done[s.name] = true
		info, err := d.Info()
		if err != nil {
			return err
		}
		s.mode, s.size = info.Mode(), info.Size()
		return c.source(s, s.name)
	})
}
