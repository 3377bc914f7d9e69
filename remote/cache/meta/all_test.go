package meta

import (
	"path/filepath"
	"testing"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// A testCache is a directory with its metadata.
type testCache struct {
	*directory.Dir
	*Cache
}

type testOptions = directory.Options

func openTest(dir string, opts *testOptions) (*testCache, error) {
	if opts == nil {
		opts = &testOptions{}
	}
	d, err := directory.Open(dir, *opts)
	if err != nil {
		return nil, err
	}
	return &testCache{d, New(d)}, nil
}

func (c *testCache) Close() error {
	c.Dir.Shut()
	c.Dir.Wait()
	return c.Dir.Close()
}

// at returns the path of a name in the directory.
func (c *testCache) at(name string) string { return filepath.Join(c.Dir.Path(), name) }

func openCache(t testing.TB, dir string, opts *testOptions) *testCache {
	t.Helper()
	c, err := openTest(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
