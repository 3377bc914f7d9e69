//go:build linux

package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestEnginesDocPodman runs what docs/engines.md shows of podman: blocks with podman unshare
// as a plain user, those without podman as both, and the others as root.
func TestEnginesDocPodman(t *testing.T) {
	testenv.Slow(t)
	need(t, "bwrap")
	_, section, _ := strings.Cut(readDoc(t, "docs/engines.md"), "\n## podman and CRI-O\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := regexp.MustCompile("(?s)```console\n.*?```").FindAllString(section, -1)
	if len(blocks) < 5 {
		t.Fatalf("only %d blocks", len(blocks))
	}
	command := regexp.MustCompile(`imgfs podman \w+`)
	forEachPodman(t, func(t *testing.T, l *podLab) {
		for _, block := range blocks {
			plain := strings.Contains(block, "podman unshare")
			if (plain || strings.Contains(block, "podman")) && plain != (l.uid != 0) {
				continue
			}
			script := strings.Join(consoleCommands(block), "\n")
			script = strings.ReplaceAll(script, "quay.io/fedora/fedora:41", "$H/busybox:$TAG")
			got := l.script(command.ReplaceAllString(script, "$0 --store "+l.store))
			if !strings.Contains("\n"+got, "\n0\n") {
				t.Errorf("of\n%s\ngot\n%s", script, got)
			}
		}
	})
}
