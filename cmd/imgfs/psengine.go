package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"strings"
	"sync"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/podstore"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/opencontainers/go-digest"
)

// addEngines notes which mounts an engine has, and for what. No engine is asked, nor imgfs
// snapshotter: what they have written is read, and what takes longer than two seconds is not.
func addEngines(ctx context.Context, rows []serve.Running) {
	roots, stores := map[string][]*serve.Running{}, map[string][]*serve.Running{}
	for i := range rows {
		r := &rows[i]
		root, chain, isChain := snapshotter.Locate(r.Dir)
		store, _, isImage := podstore.Locate(r.Dir)
		switch {
		case isChain && r.Own:
			r.Engine = serve.Engine{Kind: serve.EngineContainerd, Chain: chain}
			roots[root] = append(roots[root], r)
		case isChain && r.Owner == "root": // only root may look who uses it
			r.Engine = serve.Engine{Kind: serve.EngineContainerd, Chain: chain}
		case isImage && r.Own:
			stores[store] = append(stores[store], r)
		}
	}
	var all sync.WaitGroup
	for root, found := range roots {
		all.Go(func() { addChains(ctx, root, found) })
	}
	for store, found := range stores {
		all.Go(func() { addImages(ctx, store, found) })
	}
	all.Wait()
}

// addChains notes what the root of a snapshotter has about mounts.
func addChains(ctx context.Context, root string, rows []*serve.Running) {
	uses, err := fusefs.Ask(ctx, func(ctx context.Context) (map[digest.Digest]*snapshotter.Use, error) {
		return snapshotter.Uses(ctx, root)
	})
	for _, r := range rows {
		use := uses[r.Engine.Chain]
		if use == nil && (err == nil || errors.Is(err, iofs.ErrNotExist)) {
			r.Engine = serve.Engine{} // its path is like that of a chain, and that is all
			continue
		}
		if err != nil {
			r.Engine.Why = err.Error()
		}
		if use == nil {
			continue
		}
		for _, img := range use.Images {
			r.Engine.Images = append(r.Engine.Images, img.Ref)
		}
		if use.Holders == nil {
			continue
		}
		r.Engine.Containers = []serve.EngineContainer{}
		for _, h := range use.Holders {
			r.Engine.Containers = append(r.Engine.Containers, serve.EngineContainer(h))
		}
	}
}

// addImages notes what an image store has about mounts.
func addImages(ctx context.Context, dir string, rows []*serve.Running) {
	names, err := fusefs.Ask(ctx, func(ctx context.Context) (map[string][]string, error) {
		store, err := podstore.Open(dir)
		if err != nil {
			return nil, err
		}
		images, err := store.Images(ctx)
		names := map[string][]string{}
		for _, img := range images {
			names[store.Mountpoint(img.Layer)] = img.Names
		}
		return names, err
	})
	if err != nil {
		return // mostly there is no store, and the path looks like one
	}
	for _, r := range rows {
		if of, listed := names[r.Dir]; listed {
			r.Engine = serve.Engine{Kind: serve.EnginePodman, Images: of}
		}
	}
}

// imageText returns what a mounted image is called, for people: as its engine calls it, if it
// has one.
func imageText(r *serve.Running) string {
	return someOf(r.Engine.Images, 1, r.Image)
}

// engineText says for people which engine has a mount, and for which containers.
func engineText(e *serve.Engine) string {
	switch {
	case e.Kind == "":
		return "-"
	case e.Kind != serve.EngineContainerd:
		return e.Kind
	}
	text := "chain " + show.ShortDigest(e.Chain)
	if e.Containers == nil {
		return text
	}
	names := make([]string, len(e.Containers))
	for i, c := range e.Containers {
		names[i] = shortKey(c.Key)
		if c.Namespace != "" {
			names[i] = c.Namespace + "/" + names[i]
		}
	}
	return text + ": " + someOf(names, 3, "no container")
}

// shortKey writes a name, of an ID of 64 digits the first ones as engines do.
func shortKey(key string) string {
	if len(key) == 64 && strings.Trim(key, "0123456789abcdef") == "" {
		return key[:12]
	}
	return key
}

// someOf writes the first names of a list, and how many more there are.
func someOf(names []string, most int, none string) string {
	if len(names) == 0 {
		return none
	}
	text := strings.Join(names[:min(len(names), most)], ", ")
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(", %d more", more)
	}
	return text
}
