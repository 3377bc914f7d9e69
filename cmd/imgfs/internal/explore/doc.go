// Package explore shows an image on the whole screen of a terminal: its layers with what
// each adds, hides and wastes, its tree, what a layer changed where, and what another image
// has that this one has not.
//
// A Model is all of it but the terminal: keys and results of background work go in, and it
// draws itself on a Canvas. It is used by one goroutine. Run gives it a terminal.
//
// Nothing waits for the network, or for a million names, but tasks in the background: the
// screen answers meanwhile, and Esc ends them. A file is read in pieces, where the reader is.
//
// What strangers have written goes through package printable before it is drawn.
package explore
