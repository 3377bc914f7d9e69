// Package holder keeps a mount alive when its server dies.
//
// A server starts the holder once it has mounted: the same program, in a process of its
// own that has the FUSE device, the state of the mount and the files that are held, and
// knows a command line. When the server dies the holder starts a successor, which
// inherits all of these; when the holder dies the server starts another. Only the death
// of both at once ends the mount. `imgfs upgrade` has the holder put another program in
// the server's place. docs/recovery.md, section "Holder", specifies descriptors,
// messages, states and times.
//
// The holder knows neither images nor FUSE. It never waits for the FUSE device, only asks
// it once, after a death, whether the mount is gone: who waits for it is woken by each
// request. It needs little memory: one thread in poll(2), no garbage collection, and the
// program's text only while something happens.
package holder
