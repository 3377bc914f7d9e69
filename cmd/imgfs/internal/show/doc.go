// Package show is how imgfs shows something to people and to programs: numbers as
// text, tables, bars that fill, and JSON that is harmless wherever it is printed.
//
// Text that strangers wrote (names of files, digests, messages of servers) is
// escaped by package printable; JSON does that itself, for a table or a line the
// caller does.
package show
