package registry

import (
	"context"
	"time"

	"github.com/imgfs/imgfs/remote/registry/hosts"
)

// refusedLife is how long a credential that was refused is not shown again, if there is
// another one.
const refusedLife = time.Minute

// credential looks up the credential, that of Options.Fallback if there is none or if it was
// refused. last says that no other can take its place.
func (e *endpoint) credential(ctx context.Context) (c hosts.Credential, last bool, err error) {
	opts := e.client.opts
	c, err = opts.Credential(ctx, e.Ref.Registry, e.Ref.Repository)
	if opts.Fallback == nil || ctx.Err() != nil {
		return c, true, err
	}
	if !c.Empty() && !e.tokens.isRefused(c) {
		return c, false, err
	}
	other, wrong := opts.Fallback(ctx, e.Ref.Registry, e.Ref.Repository)
	if !other.Empty() {
		c = other
	}
	return c, true, hosts.JoinBroken(err, wrong)
}

// refuse notes that what was got with a credential is refused, and reports whether it is worth
// while to log in again: there may be another credential.
func (e *endpoint) refuse(a *authorization) bool {
	if !a.used || a.last {
		return false
	}
	c := e.tokens
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusedCred, c.refusedAt = a.cred, time.Now()
	return true
}

// isRefused tells whether a credential was refused not long ago.
func (c *tokenCache) isRefused(cred hosts.Credential) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusedCred == cred && time.Since(c.refusedAt) < refusedLife
}
