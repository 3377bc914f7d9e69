package main

import (
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/printable"
)

// A foreignThing is a file or directory in the cache directory that imgfs leaves
// alone, because it did not make it or cannot get at it.
type foreignThing struct {
	Path      string         `json:"path"`                // in the directory
	PathBytes show.NameBytes `json:"pathBytes,omitempty"` // see show.Marshal
	Bytes     int64          `json:"bytes"`               // on disk, with everything below it
	Why       string         `json:"why"`                 // it is left alone
}

func foreignThings(others []cache.Other) []foreignThing {
	things := make([]foreignThing, len(others))
	for i, o := range others {
		things[i] = foreignThing{Path: o.Path, Bytes: o.Bytes, Why: o.Why}
	}
	return things
}

// maxForeign is how many foreign things are printed by name.
const maxForeign = 20

// printForeign prints the things in the cache directory that are left alone.
func (e *env) printForeign(things []foreignThing) error {
	for i, t := range things {
		if i == maxForeign {
			return e.printLine("left alone: %d more", len(things)-i)
		}
		if err := e.printLine("left alone: %s (%s): %s", printable.Name(t.Path), show.Bytes(t.Bytes), printable.Line(t.Why)); err != nil {
			return err
		}
	}
	return nil
}
