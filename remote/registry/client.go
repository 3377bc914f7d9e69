package registry

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

// A Client speaks to registries and to the servers they redirect to. Its
// repositories share connections, and the limits that hosts have. It is safe
// for concurrent use.
type Client struct {
	opts      *Options
	hosts     *hostPool
	cooldowns cooldowns
	manners   manners

	mu        sync.Mutex
	schemes   map[string]string                                     // of endpoints that plain http is allowed for
	known     map[string]bool                                       // hosts that a credential may have been sent to by https
	offers    map[string]func(context.Context) ([]challenge, error) // to log in, by where the API is
	leftovers map[*leftover]struct{}
	closed    bool
}

// New returns a client. It asks no one for anything. A nil opts means the
// defaults.
func New(opts *Options) *Client {
	o := opts.withDefaults()
	c := &Client{
		opts:      o,
		cooldowns: cooldowns{opts: o, byPlace: make(map[string]*cooldown)},
		schemes:   make(map[string]string),
		known:     make(map[string]bool),
		offers:    make(map[string]func(context.Context) ([]challenge, error)),
		leftovers: make(map[*leftover]struct{}),
	}
	c.hosts = newHostPool(o, c.dropLeftover)
	return c
}

// Repository returns the image that ref names. It asks no one for anything.
func (c *Client) Repository(ref remote.Reference) *Repository {
	r := &Repository{client: c, ref: ref, blobs: make(map[digest.Digest]*blob)}
	r.endpoints = remembered(r.findEndpoints)
	return r
}

// Close ends the connections that are idle, and the others when the requests that
// use them are over. Reads still under way may fail; the client must not be used
// afterwards.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	leftovers := slices.Collect(maps.Keys(c.leftovers))
	c.mu.Unlock()
	for _, l := range leftovers {
		l.drop()
	}
	c.hosts.close()
	return nil
}
