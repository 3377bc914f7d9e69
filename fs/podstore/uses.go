package podstore

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A graphRecord is what is of use of an entry in a list of containers/storage: one of
// layers.json, images.json or containers.json.
type graphRecord struct {
	ID     string   `json:"id"`
	Names  []string `json:"names"`
	Parent string   `json:"parent"` // of a layer
	Layer  string   `json:"layer"`  // of an image or container
}

func (r *graphRecord) called() string {
	if len(r.Names) > 0 {
		return r.Names[0]
	}
	return r.ID[:min(len(r.ID), 12)]
}

// Uses returns what would break without an image, in words for people: containers, running or
// not, and images that are built on it, of the engines that keep theirs in one of roots
// (graphroot of storage.conf), and running ones of any other. No lock is taken: engines
// replace their lists by renaming. What cannot be read has no uses.
func (s *Store) Uses(img *Image, roots []string) []string {
	ours := map[string]bool{}
	for _, id := range layerIDs(img.ID, img.Layers) {
		ours[id] = true
	}
	var uses []string
	for _, root := range roots {
		parents := map[string]string{}
		for _, r := range graphList(root, layersDir, "layers.json", "volatile-layers.json") {
			parents[r.ID] = r.Parent
		}
		on := func(layer string) bool {
			for range len(parents) + 1 { // a list may lead in circles
				if layer == "" || ours[layer] {
					return layer != ""
				}
				layer = parents[layer]
			}
			return false
		}
		for _, r := range graphList(root, "overlay-containers", "containers.json", "volatile-containers.json") {
			if on(r.Layer) {
				uses = append(uses, "container "+r.called())
			}
		}
		for _, r := range graphList(root, imagesDir, "images.json") {
			if on(r.Layer) {
				uses = append(uses, "image "+r.called())
			}
		}
	}
	if len(uses) == 0 {
		uses = mountedBy(shortName(img.Layer), img.Layer)
	}
	return uses
}

// graphList reads lists of an engine.
func graphList(root, dir string, names ...string) (all []graphRecord) {
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(root, dir, name))
		if err != nil {
			continue
		}
		var list []graphRecord
		if json.Unmarshal(text, &list) == nil {
			all = append(all, list...)
		}
	}
	return all
}

// mountedBy returns the processes in whose mount namespace there is an overlayfs on a
// directory one of whose elements is given: one process of each namespace.
func mountedBy(elements ...string) (uses []string) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	slices.SortFunc(names, func(a, b string) int { return pidOf(a) - pidOf(b) })
	seen := map[string]bool{}
	for _, name := range names {
		namespace, err := os.Readlink(filepath.Join(name, "ns/mnt"))
		if err != nil || seen[namespace] {
			continue
		}
		text, err := os.ReadFile(filepath.Join(name, "mountinfo"))
		if err != nil {
			continue
		}
		seen[namespace] = true
		for line := range strings.Lines(string(text)) {
			_, about, _ := strings.Cut(line, " - ")
			if strings.HasPrefix(about, "overlay ") && slices.ContainsFunc(elements, func(e string) bool { return strings.Contains(about, "/"+e) }) {
				uses = append(uses, fmt.Sprintf("process %d, in whose mounts a container's files are", pidOf(name)))
				break
			}
		}
	}
	return uses
}

func pidOf(name string) int {
	pid, _ := strconv.Atoi(filepath.Base(name))
	return pid
}
