package labimage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// GoSrc is where GoTree's image has the sources.
const GoSrc = "usr/local/go/src"

const (
	goneDir   = GoSrc + "/index" // whited out
	opaqueDir = GoSrc + "/hash"  // emptied, and given one file
)

// GoTree makes dir an OCI layout, as Write does, of an image of the source
// tree of the Go release in use (go env GOROOT), some 10,000 files. The first
// layer has the tree; the second changes, renames and chmods some files, and
// adds hard and symbolic links and extended attributes; the third deletes
// some files, a directory and all but one file of another.
func GoTree(dir string) error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	return goTree(dir, filepath.Join(strings.TrimSpace(string(out)), "src"))
}

func goTree(dir, root string) error {
	t, err := readTree(root)
	if err != nil {
		return err
	}
	_, err = Write(dir, t.base, t.changes, t.deletions)
	return err
}

// A tree is what a directory on disk holds, in the order of a walk.
type tree struct {
	root string
	all  []source
	// What becomes of regular files in the second and third layer.
	changed, renamed, chmodded, deleted []source
}

// A source is a file, directory or symlink on disk.
type source struct {
	name   string // in the image
	disk   string
	mode   fs.FileMode
	size   int64
	target string    // of a symlink
	mtime  time.Time // in the image: not the file's own, which is not the same everywhere
}

func readTree(root string) (*tree, error) {
	root, err := filepath.EvalSymlinks(root) // distributions keep it elsewhere
	if err != nil {
		return nil, err
	}
	t := &tree{root: root}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return t.add(p, d)
	})
	if err != nil {
		return nil, err
	}
	t.choose()
	if len(t.changed) == 0 || len(t.renamed) == 0 || len(t.chmodded) == 0 || len(t.deleted) == 0 {
		return nil, fmt.Errorf("%s: only %d files and directories", root, len(t.all))
	}
	return t, nil
}

func (t *tree) add(p string, d fs.DirEntry) error {
	rel, err := filepath.Rel(t.root, p)
	if err != nil {
		return err
	}
	s := source{name: path.Join(GoSrc, filepath.ToSlash(rel)), disk: p}
	info, err := d.Info()
	if err != nil {
		return err
	}
	s.mode, s.size = info.Mode(), info.Size()
	s.mtime = epoch.Add(time.Duration(len(t.all)) * time.Second)
	if s.mode.Type() == fs.ModeSymlink {
		if s.target, err = os.Readlink(p); err != nil {
			return err
		}
	}
	if kind := s.mode.Type(); kind.IsRegular() || kind.IsDir() || kind == fs.ModeSymlink {
		t.all = append(t.all, s)
	}
	return nil
}

// choose decides what happens to files, by their place in the walk.
func (t *tree) choose() {
	for i, s := range t.all {
		if !s.mode.IsRegular() || strings.HasPrefix(s.name, goneDir+"/") || strings.HasPrefix(s.name, opaqueDir+"/") {
			continue
		}
		switch {
		case i%97 == 5:
			t.changed = append(t.changed, s)
		case i%211 == 7:
			t.renamed = append(t.renamed, s)
		case i%173 == 11:
			t.chmodded = append(t.chmodded, s)
		case i%139 == 3:
			t.deleted = append(t.deleted, s)
		}
	}
}

// base writes the first layer.
func (t *tree) base(a *Archive) error {
	for _, d := range []string{"etc", "usr", "usr/local", "usr/local/go"} {
		if err := a.Dir(d); err != nil {
			return err
		}
	}
	if err := a.File("etc/os-release", "ID=lab\nNAME=\"Lab image of Go's sources\"\n"); err != nil {
		return err
	}
	for _, s := range t.all {
		if err := a.source(s, s.name); err != nil {
			return err
		}
	}
	return nil
}

// source writes an entry for what is on disk, with modes that do not depend
// on who unpacked it.
func (a *Archive) source(s source, name string, opts ...Option) error {
	opts = append([]Option{Mode(0o644), ModTime(s.mtime)}, opts...)
	switch s.mode.Type() {
	case fs.ModeDir:
		return a.Dir(name, append(opts, Mode(0o755))...)
	case fs.ModeSymlink:
		return a.Symlink(name, s.target, append(opts, Mode(0o777))...)
	}
	if s.mode&0o100 != 0 {
		opts[0] = Mode(0o755)
	}
	f, err := os.Open(s.disk)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.Copy(name, s.size, f, opts...)
}

// A step writes one or more entries; they are sorted by name.
type step struct {
	name  string
	write func(a *Archive) error
}

// write writes steps in the order of their names, and before each the
// directories above it, as builders do that compare two trees.
func (a *Archive) write(steps []step, dirs ...Option) error {
	sort.SliceStable(steps, func(i, j int) bool { return steps[i].name < steps[j].name })
	done := map[string]bool{".": true}
	for _, s := range steps {
		if err := a.parents(path.Dir(s.name), done, dirs); err != nil {
			return err
		}
		if err := s.write(a); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archive) parents(dir string, done map[string]bool, opts []Option) error {
	if done[dir] {
		return nil
	}
	done[dir] = true
	if err := a.parents(path.Dir(dir), done, opts); err != nil {
		return err
	}
	return a.Dir(dir, opts...)
}

// changes writes the second layer.
func (t *tree) changes(a *Archive) error {
	later := epoch.AddDate(0, 1, 0)
	var steps []step
	add := func(name string, write func(a *Archive) error) { steps = append(steps, step{name, write}) }
	for i, s := range t.changed {
		add(s.name, func(a *Archive) error {
			return a.appended(s, "\n// Changed in the second layer.\n", ModTime(later.Add(time.Duration(i)*1_234_567)))
		})
	}
	for _, s := range t.renamed {
		add(s.name, func(a *Archive) error { return a.Whiteout(s.name) })
		to := path.Join(path.Dir(s.name), "renamed_"+path.Base(s.name))
		add(to, func(a *Archive) error { return a.source(s, to) })
	}
	for i, s := range t.chmodded {
		add(s.name, func(a *Archive) error { return a.source(s, s.name, Mode(0o4700), Owner(1000+i, 100)) })
	}
	// Names behind that of GoSrc: what links refer to comes first.
	add("usr/local/go/yy-attributes", func(a *Archive) error {
		return a.File("usr/local/go/yy-attributes", "with attributes\n",
			Xattr("user.mime_type", "text/plain"), Xattr("user.binary", "\x00\x01\xff"))
	})
	add("usr/local/go/zz-hard", func(a *Archive) error {
		return errors.Join(a.Link("usr/local/go/zz-hard", t.changed[0].name, ModTime(later)),
			a.Link("usr/local/go/zz-hard-2", t.changed[0].name, ModTime(later)))
	})
	add("usr/local/go/zz-symlink", func(a *Archive) error {
		return errors.Join(a.Symlink("usr/local/go/zz-symlink", "src/fmt"),
			a.Symlink("usr/local/go/zz-symlink-absolute", "/"+GoSrc),
			a.Symlink("usr/local/go/zz-symlink-dangling", "not/here"))
	})
	return a.write(steps, ModTime(later))
}

// appended writes a source with some text behind its content.
func (a *Archive) appended(s source, text string, opts ...Option) error {
	f, err := os.Open(s.disk)
	if err != nil {
		return err
	}
	defer f.Close()
	r := io.MultiReader(io.LimitReader(f, s.size), strings.NewReader(text))
	return a.Copy(s.name, s.size+int64(len(text)), r, opts...)
}

// deletions writes the third layer.
func (t *tree) deletions(a *Archive) error {
	last := epoch.AddDate(0, 2, 0)
	var steps []step
	for _, s := range t.deleted {
		steps = append(steps, step{s.name, func(a *Archive) error { return a.Whiteout(s.name) }})
	}
	steps = append(steps,
		step{goneDir, func(a *Archive) error { return a.Whiteout(goneDir) }},
		step{opaqueDir + "/new.go", func(a *Archive) error {
			return errors.Join(a.Opaque(opaqueDir), a.File(opaqueDir+"/new.go", "package hash\n"))
		}})
	return a.write(steps, ModTime(last))
}
