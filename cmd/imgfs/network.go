package main

import (
	"math"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/spf13/pflag"
)

// The defaults of registry.Options, which the help texts name.
const (
	defaultReadTimeout = 60 * time.Second
	defaultRetries     = 5
	defaultMaxRequests = 16
)

// A network is how registries are asked, and which of them are down. The zero value
// means the defaults.
type network struct {
	readTimeout  time.Duration // negative: for ever
	tries        int
	maxRequests  int
	allowPrivate bool // registries may lead to private addresses

	servers serve.Servers // that are asked
}

// networkFlags declares the flags for timeouts and retries. set checks their values
// and stores them in a network.
func networkFlags(f *pflag.FlagSet) (set func(*network) error) {
	timeout := f.Duration("read-timeout", defaultReadTimeout, "`T` how long a read waits if nothing comes (60s); 0: ever")
	retries := f.Int("retries", defaultRetries, "`N` how often in a row a failed request is sent again (5)")
	most := f.Int("max-requests", defaultMaxRequests, "`N` how many requests a server has at a time (16)")
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

// configure sets the fields of opts that n is about.
func (n *network) configure(opts *registry.Options) {
	opts.ReadTimeout, opts.Tries, opts.MaxRequests = n.readTimeout, n.tries, n.maxRequests
	if t := n.readTimeout; t > 0 {
		// A short read timeout needs shorter inner timeouts, or nothing is left for
		// a retry.
		opts.DialTimeout, opts.HeaderTimeout, opts.StallTimeout = min(t/3, 10*time.Second), min(t/3, 15*time.Second), min(t/3, 10*time.Second)
	}
	opts.AllowPrivate, opts.StateChanged = n.allowPrivate, n.servers.Changed
}
