// Package profile says what programs read first of the images of a repository, by path:
// which parts of which files, in what order, and how sure that is. What one mount has read
// can be fetched ahead for the next one, also of another tag, which has other layers.
//
//	p := profile.New("docker.io/library/node", "linux/amd64")
//	p.Add(reads, time.Now())           // what was read after one mount
//	c := profile.NewChooser(p)
//	first := c.First()                 // what the next one is likely to want
//	more := c.Read("/usr/bin/python3") // and more, once something tells which program it is
//
// A profile has a few starts: what is read from the moment that something begins until
// nothing new is asked for. Those of different programs are kept apart, because who starts
// one of them does not want the files of the others.
//
// # Limits
//
// A profile is a hint. Whoever made it, it leads to nothing but fetching parts of files that
// the image has, within the budget of who fetches them. The package knows no images and
// fetches nothing.
package profile
