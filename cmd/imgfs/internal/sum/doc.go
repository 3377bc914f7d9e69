// Package sum prints and checks the SHA-256 of files of an image, as sha256sum(1) of
// coreutils does. What the index of a layer knows is not read.
package sum
