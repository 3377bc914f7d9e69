// Package serve is what a process of imgfs does while it serves a mount: it goes to
// the background, writes the log, tells statistics, fetches what nobody has read
// yet, and ends so that no dead directory is left.
//
// The process that the user's shell waits for starts another one (Detach), which
// mounts and says so through a pipe (Parent). Stats of a mount are in an extended
// attribute of its root; StatsOf reads them from any other process.
package serve
