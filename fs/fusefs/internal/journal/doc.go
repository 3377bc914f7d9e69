// Package journal is the memory that a server of a mount leaves to the next one: which
// requests it has read and not answered, which files are open, and records of what the
// mount is. docs/recovery.md, "State", has the layout. The package knows where things lie
// in that memory and what may be believed of them after its writer was killed at any
// moment; it knows little of what requests mean.
//
// The memory is a memfd(2). It belongs to one process at a time: that of a killed server
// has ended before the next one writes. A standby may read records meanwhile. Where nothing
// is to be left to anybody, the same layout lies in memory without a file.
package journal
