package cache

import (
	"path/filepath"
	"testing"
)

// A testCacheM is a directory with its metadata.
type testCacheM struct {
	*directory
	*metaCache
}

type testOptionsM = directoryOptions

func openTestM(dir string, opts *testOptionsM) (*testCacheM, error) {
	if opts == nil {
		opts = &testOptionsM{}
	}
	d, err := openDirectory(dir, *opts)
	if err != nil {
		return nil, err
	}
	return &testCacheM{d, newMetaCache(d)}, nil
}

func (c *testCacheM) Close() error {
	c.directory.shut()
	c.directory.Wait()
	return c.directory.close()
}

// at returns the path of a name in the directory.
func (c *testCacheM) at(name string) string { return filepath.Join(c.directory.Path(), name) }

func openCacheM(t testing.TB, dir string, opts *testOptionsM) *testCacheM {
	t.Helper()
	c, err := openTestM(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
