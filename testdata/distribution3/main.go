// Distribution3 is the registry of the distribution project, version 3, with its
// command line and with storage in a directory alone, so that remote/registry can be
// tested with it. It is a module of its own because the registry is heavy and nothing
// else needs it.
package main

import (
	"os"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	if registry.RootCmd.Execute() != nil { // which has said why
		os.Exit(1)
	}
}
