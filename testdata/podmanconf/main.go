// Podmanconf says what podman's own library makes of registries.conf files, so
// that remote/registry/hosts can be held against it. It reads questions, a line of
// JSON each, and writes an answer a line. It is a module of its own because the
// library is heavy and nothing else needs it.
package main

import (
	"bufio"
	_ "crypto/sha256" // for digests
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/shortnames"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
	"go.podman.io/image/v5/types"
)

// A question is a configuration and names to look up in it.
type question struct {
	Files []string // the contents of registries.conf and of its drop-ins
	Names []string // with registry
	Short []string // without
}

// An answer has an element for each name, or says why there is none.
type answer struct {
	Error string // of the files
	Names []places
	Short []places
}

// Places are where an image is looked for, in order.
type places struct {
	Error   string
	Blocked bool // by the [[registry]] that fits the name
	Refused int  // places that are left out as blocked
	Places  []string
}

func main() {
	dir, err := os.MkdirTemp("", "podmanconf")
	if err == nil {
		err = answerAll(dir)
		os.RemoveAll(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "podmanconf:", err)
		os.Exit(1)
	}
}

func answerAll(dir string) error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var q question
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			return err
		}
		a, err := q.answer(dir)
		if err != nil {
			return err
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return in.Err()
}

func (q *question) answer(dir string) (*answer, error) {
	sys := &types.SystemContext{
		SystemRegistriesConfPath:    filepath.Join(dir, "registries.conf"),
		SystemRegistriesConfDirPath: filepath.Join(dir, "registries.conf.d"),
		UserShortNameAliasConfPath:  filepath.Join(dir, "short-name-aliases.conf"),
	}
	if err := os.RemoveAll(sys.SystemRegistriesConfDirPath); err != nil {
		return nil, err
	}
	if err := os.Mkdir(sys.SystemRegistriesConfDirPath, 0o700); err != nil {
		return nil, err
	}
	for i, text := range q.Files {
		path := sys.SystemRegistriesConfPath
		if i > 0 {
			path = filepath.Join(sys.SystemRegistriesConfDirPath, fmt.Sprintf("%03d.conf", i))
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	sysregistriesv2.InvalidateCache()
	if _, err := sysregistriesv2.TryUpdatingCache(sys); err != nil {
		return &answer{Error: err.Error()}, nil
	}
	a := &answer{}
	for _, name := range q.Names {
		a.Names = append(a.Names, find(sys, name))
	}
	for _, name := range q.Short {
		a.Short = append(a.Short, resolve(sys, name))
	}
	return a, nil
}

// find does what package docker of the library does before it asks a registry:
// the [[registry]] is looked up by the repository's name, and each place may be
// blocked by its own.
func find(sys *types.SystemContext, name string) places {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return places{Error: err.Error()}
	}
	registry, err := sysregistriesv2.FindRegistry(sys, named.Name())
	if err != nil {
		return places{Error: err.Error()}
	}
	if registry == nil {
		return places{Places: []string{place(named, false)}}
	}
	sources, err := registry.PullSourcesFromReference(named)
	if err != nil {
		return places{Error: err.Error(), Blocked: registry.Blocked}
	}
	found := places{Blocked: registry.Blocked}
	for _, source := range sources {
		at, err := sysregistriesv2.FindRegistry(sys, source.Reference.Name())
		if err != nil {
			return places{Error: err.Error()}
		}
		if at != nil && at.Blocked {
			found.Refused++
			continue
		}
		found.Places = append(found.Places, place(source.Reference, source.Endpoint.Insecure))
	}
	return found
}

func place(named reference.Named, insecure bool) string {
	text := reference.TagNameOnly(named).String()
	if insecure {
		text += " insecure"
	}
	return text
}

func resolve(sys *types.SystemContext, name string) places {
	resolved, err := shortnames.Resolve(sys, name)
	if err != nil {
		return places{Error: err.Error()}
	}
	var found places
	for _, candidate := range resolved.PullCandidates {
		found.Places = append(found.Places, place(candidate.Value, false))
	}
	return found
}
