// Package rosetta stands for the module of this name, which no Go proxy serves. docker asks
// it whether Apple's Rosetta translates the program.
package rosetta

// Enabled reports that it does not: there is none on Linux.
func Enabled() bool { return false }
