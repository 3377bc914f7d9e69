package cache

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// VerifyMeta checks manifests, configs, references, verification marks and
// records of images, and removes those that are wrong; it returns how many files it looked at, and the
// paths below the directory of those that it removed. Files whose names are
// none of the cache's are left alone, and not counted.
//
// Others may use the directory meanwhile. The error is ctx.Err(), or that the
// disk fails.
func (c *metaCache) VerifyMeta(ctx context.Context) (checked int, removed []string, err error) {
	for _, dir := range []struct {
		name  string
		right func(name string, data []byte) bool
	}{
		{metaDir, rightMeta},
		{refsDir, c.rightRef},
		{verifiedDir, rightMark},
		{imagesDir, rightImage},
	} {
		some, wrong, err := c.verifyFiles(ctx, dir.name, dir.right)
		checked += some
		removed = append(removed, wrong...)
		if err != nil {
			return checked, removed, err
		}
	}
	return checked, removed, nil
}

// verifyFiles checks the files below one directory. What cannot be read counts
// as missing.
func (c *metaCache) verifyFiles(ctx context.Context, dir string, right func(name string, data []byte) bool) (checked int, removed []string, err error) {
	var names []string
	err = c.files.Walk(dir, func(name string, st *unix.Stat_t) bool {
		if isRegular(st) && kindOf(name) != kindOther {
			names = append(names, name)
		}
		return true
	}, func(string, error) {})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, nil, err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return checked, removed, err
		}
		there, bad, err := c.verifyFile(name, right)
		if there {
			checked++
		}
		if bad {
			c.badStored.Add(1)
			removed = append(removed, name)
		}
		if err != nil {
			return checked, removed, err
		}
	}
	return checked, removed, nil
}

// verifyFile checks one file and removes it if it is wrong.
func (c *metaCache) verifyFile(name string, right func(name string, data []byte) bool) (there, bad bool, err error) {
	f, err := c.files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMeta+1))
	if err == nil && len(data) <= maxMeta && right(name, data) {
		return true, false, nil
	}
	if !c.files.Is(f, name) {
		return true, false, nil // there is another one now
	}
	if err := c.files.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, false, err
	}
	return true, true, nil
}

func rightMeta(name string, data []byte) bool {
	d, ours := digestOf(name)
	return ours && d.Algorithm().FromBytes(data) == d
}

func rightMark(_ string, data []byte) bool {
	_, right := parseMark(data)
	return right
}

func rightImage(name string, data []byte) bool {
	img, ok := parseImage(data)
	return ok && img.fileName() == path.Base(name)
}

func (c *metaCache) rightRef(name string, data []byte) bool {
	var r ref
	return json.Unmarshal(data, &r) == nil && r.Descriptor.Digest.Validate() == nil && c.refPath(r.Name) == name
}
