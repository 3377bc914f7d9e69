//go:build linux

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestCacheForeign: what is in the cache because of indexes that others made is counted,
// verified and removed.
func TestCacheForeign(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	for _, name := range []string{"estargz/build", "zstdchunked/podman", "soci/spans"} {
		t.Run(name, func(t *testing.T) {
			cache := "--cache-dir=" + t.TempDir()
			image := pushOwnForeign(t, registrytest.New(t, nil), name)
			var rows []indexRow
			if err := json.Unmarshal([]byte(succeed(t, "index", "--json", cache, image)), &rows); err != nil {
				t.Fatal(err)
			}
			list := cacheListOf(t, cache)
			l := list.Images[0].Layers[0]
			if l.Size != rows[0].Size || l.Index != rows[0].IndexBytes || list.Images[0].Index != l.Index || len(list.Other)+len(list.Foreign) > 0 {
				t.Errorf("cache ls: %+v; the index has %d bytes", list, rows[0].IndexBytes)
			}
			if r := invoke(t, "cache", "verify", cache); r.code != 0 || !strings.Contains(r.stdout, "1 index") {
				t.Errorf("cache verify: %+v", r)
			}
			succeed(t, "index", "--fetch", cache, image)
			list = cacheListOf(t, cache)
			l = list.Images[0].Layers[0]
			if l.Cached != l.Size || l.Verified != "whole" {
				t.Errorf("all is fetched, and cache ls has %+v", l)
			}
			var pruned pruneResult
			if err := json.Unmarshal([]byte(succeed(t, "cache", "prune", "--all", "--json", cache)), &pruned); err != nil {
				t.Fatal(err)
			}
			if pruned.Blobs != 1 || pruned.Indexes != 1 || len(pruned.Foreign) > 0 {
				t.Errorf("cache prune: %+v", pruned)
			}
			for _, f := range filesBelow(t, strings.TrimPrefix(cache, "--cache-dir=")) {
				if strings.HasPrefix(f, "blobs/") || strings.HasPrefix(f, "indexes/") {
					t.Errorf("%s is left", f)
				}
			}
		})
	}
}

func cacheListOf(t *testing.T, cache string) (list cacheList) {
	t.Helper()
	if err := json.Unmarshal([]byte(succeed(t, "cache", "ls", "--json", cache)), &list); err != nil {
		t.Fatal(err)
	}
	return list
}
