// Package entry is how the commands show one file of an image to programs: the object
// that ls, find, tree, stat and others print for it with --json.
package entry
