// Package gnu is what commands have that take the flags of programs of GNU: how such
// flags are declared, in what units sizes are printed, and the patterns of a shell.
package gnu
