// Package cli is the command line of a program that has commands: it finds the
// command that the user wants, parses its flags, renders help, and prints messages
// and errors. It knows neither images nor any command: a Program is made of
// Commands, and those close over what they need.
//
// Everything that help says of a flag is in the flag itself: its usage text
// begins with the name of its value in back-quotes, if it has one, and its lines
// are broken where help breaks them. So what else is made of commands and flags,
// such as manual pages, can be made from a Program.
package cli
