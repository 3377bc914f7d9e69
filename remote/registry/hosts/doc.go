// Package hosts says whom to ask for an image, with what credentials and
// certificates: it reads the files of podman, docker and containerd.
// docs/registries.md lists the settings that count.
//
//	conf, err := (&hosts.ConfigFiles{Logf: log.Printf}).Load()
//	...
//	name, err := conf.ShortName("fedora")
//	...
//	client := registry.New(&registry.Options{
//		Sites:      conf.Sites,
//		Credential: conf.Credentials(""),
//	})
//
// A program with no such files makes its own Sites and Credentials, and hands
// functions that return them to package registry. Nothing here asks anyone
// but credential helpers.
//
// The errors about files are ErrConfiguration and ErrBlocked, wrapped; they
// quote no credential. What is wrong with credentials is a BrokenError, and no
// reason not to ask: they count as missing.
package hosts
