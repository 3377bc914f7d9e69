// Package config reads the file in which a user keeps values of flags. It knows no
// flag: a File says what is written where, and the program what that means.
//
//	offline = true            # for every command
//	[mount]
//	grace = "1m"              # for imgfs mount
//	[cache.ls]
//	json = true               # for imgfs cache ls
//
// The file can name where credentials lie and whom to believe, so that only the user and
// root may be able to write it.
package config
