// Package indexrepo publishes layer indexes in registries, and finds those that
// are published: in an index repository, which has the indexes of any images, or
// beside an image. The artifacts and their tags are specified in
// docs/published-indexes.md.
//
// A Finder asks one place after the other what it has:
//
//	found := finder.Find(ctx, indexrepo.Place{Source: repo}, manifest, layers)
//	for d, p := range found { … indexes.Far reads p.Index as far as it is needed }
//
// What goes wrong with a place is no error: an image is readable without any
// published index, so whatever a place does, it only has none. A place that is
// silent costs three seconds, once.
//
// Publish puts indexes into a place. It reads nothing that it then changes, so
// any number of publishers may be at work at the same time.
//
// Profiles of what programs read first are published in the same places: see
// PublishProfile and Finder.FindProfile.
//
// This package does not look into an index or a profile: who opens an index compares it
// with Published.Header, and with the layer.
package indexrepo
