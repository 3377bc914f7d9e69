package main

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// What registry.Options have for defaults.
const (
	defaultReadTimeout = 60 * time.Second
	defaultRetries     = 5
	defaultMaxRequests = 16
)

// A network is how registries are spoken to, and what is known of them. The
// zero value means the defaults.
type network struct {
	readTimeout  time.Duration // negative: for ever
	tries        int
	maxRequests  int
	allowPrivate bool // registries may lead to private addresses

	health func() []registry.HostState // nil: no registry is asked

	mu  sync.Mutex
	log func(format string, args ...any) // nil: nobody listens
}

// networkFlags declares the flags that say how patient to be. set checks them
// and takes them over into a network.
func networkFlags(f *pflag.FlagSet) (set func(*network) error) {
	timeout := f.Duration("read-timeout", defaultReadTimeout, "`T` how long a read waits if nothing comes (default 60s) before it fails with\n"+
		"EIO; the next one tries anew. 0: until it is killed")
	retries := f.Int("retries", defaultRetries, "`N` how often in a row a failed request is sent again (default 5)")
	most := f.Int("max-requests", defaultMaxRequests, "`N` how many requests a server has at a time (default 16)")
	return func(n *network) error {
		switch {
		case *timeout < 0:
			return cli.Usagef("--read-timeout %s: less than nothing", *timeout)
		case *retries < 0:
			return cli.Usagef("--retries %d: less than none", *retries)
		case *most < 1 || *most > 1000:
			return cli.Usagef("--max-requests %d: between 1 and 1000 is possible", *most)
		}
		n.readTimeout, n.tries, n.maxRequests = *timeout, min(*retries, math.MaxInt-1)+1, *most
		if *timeout == 0 {
			n.readTimeout = -1
			if !f.Changed("retries") {
				n.tries = math.MaxInt
			}
		}
		return nil
	}
}

// configure sets what n says in opts.
func (n *network) configure(opts *registry.Options) {
	opts.ReadTimeout, opts.Tries, opts.MaxRequests = n.readTimeout, n.tries, n.maxRequests
	if t := n.readTimeout; t > 0 {
		// Who waits for less than usual must notice sooner that nothing
		// comes, to try again in time.
		opts.DialTimeout, opts.HeaderTimeout, opts.StallTimeout = min(t/3, 10*time.Second), min(t/3, 15*time.Second), min(t/3, 10*time.Second)
	}
	opts.AllowPrivate, opts.StateChanged = n.allowPrivate, n.changed
}

// changed is for registry.Options.StateChanged.
func (n *network) changed(host string, up bool, reason string) {
	n.mu.Lock()
	log := n.log
	n.mu.Unlock()
	switch {
	case log == nil:
	case up:
		log("registry %s: it answers again", host)
	default:
		log("registry %s: down: %s", host, reason)
	}
}

// tellTo has a log told of what is down, and of each change from now on.
func (n *network) tellTo(log func(format string, args ...any)) {
	n.mu.Lock()
	n.log = log
	n.mu.Unlock()
	for _, s := range n.servers() {
		if s.Down {
			n.changed(s.Host, false, s.Reason)
		}
	}
}

// told is for fusefs.Options.Told: that a server is down has been logged.
func (n *network) told(err error) bool {
	return registry.NoAnswer(err) && slices.ContainsFunc(n.servers(), func(s serverState) bool { return s.Down })
}

// servers returns what is known of the servers, those first that are down.
func (n *network) servers() []serverState {
	states := []serverState{}
	if n.health == nil {
		return states
	}
	for _, down := range []bool{true, false} {
		for _, h := range n.health() {
			if h.Down == down {
				states = append(states, serverState{h.Host, h.Down, h.Since.UTC().Truncate(time.Second), h.Reason})
			}
		}
	}
	return states
}

// noCoreFiles keeps this process, and those that it starts, from leaving core
// files: passwords and tokens are in its memory.
func noCoreFiles() {
	// Less is always allowed, and where it is not the files are the user's own.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}
