// Package directory owns a cache directory: which names it has, how files come to
// be in it whole or not at all, which locks processes take, how much it may take on
// disk, and what is removed to make room. The packages of blobs, kept files, metadata
// and indexes write through it; package cache describes the whole, and the order of
// locks.
package directory
