// Package image opens container images: it loads the index of every layer from
// the cache, or makes it by reading the layer once, and merges what they list.
//
// The tree of an Image reads through the cache. The Image counts what is read
// (Image.Stats), keeps files on disk that are read often, and can be brought
// into the cache whole (Image.Fill).
//
// A full disk fails nothing: indexes that cannot be kept are held in memory, and
// made again by the next process.
package image
