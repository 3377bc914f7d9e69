// Package cli is the command line of a program that has commands: it finds the
// command that the user wants, parses its flags, renders help, and prints messages
// and errors. It knows neither images nor any command: a Program is made of
// Commands, and those close over what they need.
//
// The help of a flag is its usage text in pflag. That begins with the name of the
// flag's value in back-quotes, if it takes one, and its lines are broken where help
// breaks them. Manual pages and completions can be made from a Program as help is.
package cli
