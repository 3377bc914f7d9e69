// Package completion connects bash, zsh and fish with a program that completes its own
// command line. A shell's script (Script) runs the program with what has been typed, and
// the program answers in lines that the script takes apart with nothing but string
// operations: nothing of an answer is ever evaluated, so that the name of a file in an
// image can hold what it likes. Bash wants the text as it is to stand in the command line,
// quoted; zsh and fish quote by themselves. Words with controls and other characters that
// could act on a terminal are left out.
package completion
