// Package serve is the life of a process that serves a mount: it goes to the
// background, writes the log, answers for statistics, prefetches the image, and ends
// without leaving a dead directory.
//
// The process that the user's shell waits for starts another one (Detach), which
// mounts and says so through a pipe (Parent). Stats of a mount are in an extended
// attribute of its root; StatsOf reads them from any other process.
package serve
