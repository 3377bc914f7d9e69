//go:build linux

package main

import (
	"regexp"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestBytes: --bytes has tables print sizes as numbers, and --json is as it was.
func TestBytes(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	image, _ := publish(t, registrytest.New(t, nil), small)
	unit := regexp.MustCompile(`\d ?[kMG]?B\b`)
	for _, args := range [][]string{{"cache", "ls"}, {"cache", "prune", "--all"}} {
		if out := succeed(t, append(args, "--bytes")...); unit.MatchString(out) {
			t.Errorf("imgfs %q --bytes has units:\n%s", args, out)
		}
		if out := succeed(t, "index", image); !unit.MatchString(out) {
			t.Errorf("imgfs index has no units:\n%s", out)
		}
		if out := succeed(t, args...); !unit.MatchString(out) {
			t.Errorf("imgfs %q has no units:\n%s", args, out)
		}
	}
}
