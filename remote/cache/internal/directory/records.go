package directory

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// VerifyRecords checks the files below one directory. What cannot be read counts
// as missing.
func (c *Dir) VerifyRecords(ctx context.Context, dir string, right func(name string, data []byte) bool) (checked int, removed []string, err error) {
	var names []string
	err = c.files.Walk(dir, func(name string, st *unix.Stat_t) bool {
		if IsRegular(st) && KindOf(name) != kindOther {
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
		there, bad, err := c.VerifyRecord(name, right)
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

// VerifyRecord checks one file and removes it if it is wrong.
func (c *Dir) VerifyRecord(name string, right func(name string, data []byte) bool) (there, bad bool, err error) {
	f, err := c.files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxRecord+1))
	if err == nil && len(data) <= MaxRecord && right(name, data) {
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
