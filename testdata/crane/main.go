// Command crane is crane of go-containerregistry, with which the bench compares
// imgfs tar. It is a module of its own, as imgfs needs nothing of it.
package main

import (
	"os"

	"github.com/google/go-containerregistry/cmd/crane/cmd"
)

func main() {
	if cmd.Root.Execute() != nil { // which has printed the error
		os.Exit(1)
	}
}
