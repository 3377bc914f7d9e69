package serve

import (
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
)

// Options returns the options for serving an image to everybody on a mount that another
// process has made. What there is to say is said by logf, such as that one of the
// image's servers is down.
func Options(img *image.Image, servers *Servers, logf func(format string, args ...any)) *fusefs.Options {
	servers.logTo(logf)
	m := &Mount{Image: img}
	m.opened.Store(img)
	return &fusefs.Options{Name: img.Name(), AllowOther: true, Suid: true, Logf: logf,
		Backings: backings{m}, Reads: img.Reads, AlreadyReported: servers.alreadyReported}
}
