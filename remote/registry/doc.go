// Package registry speaks the OCI distribution API: it reads images and artifacts,
// and puts blobs and manifests. Its Repository is a remote.ArtifactSource.
//
// Tags and the resolving of references are oras-go's; the rest is written for
// reading an image little by little over hours: whoever has to log in is asked
// how, by any challenge that RFC 9110 has, and others share the token; blobs are
// read in ranges, an answer that is not the range asked for is refused, a
// broken one is taken up where it broke, and what a registry says about
// waiting is obeyed by all readers of a host together.
//
//	client := registry.New(nil)
//	defer client.Close()
//	ref, err := remote.ParseReference("quay.io/fedora/fedora:latest")
//	...
//	image, err := remote.Open(ctx, client.Repository(ref), "")
//
// What lies beside an image (other tags, referrers) is asked for at the same places,
// but with less patience, and without a mirror being left alone that does not have it.
//
// Package hosts says whom to ask, by what containerd, podman and docker have
// configured; Options can hand in other functions for it. Mirrors are asked in
// order, one that fails is left alone for some minutes, and none is sent
// another's credential. What is written goes to the registry itself alone.
// docs/registries.md has the rules.
//
// No registry verifies a range, so neither can a reader here: whoever reads
// blobs checks the bytes against digests of its own (see package cache). What
// Fetch returns is checked against its descriptor.
//
// The errors are the sentinels of package remote, wrapped; their texts carry
// no credential and no query of a signed URL.
//
// # Glossary
//
//   - site: a server that may have an image, as configuration describes it
//     (hosts.Site).
//   - endpoint: a site of one repository, with the scheme it is spoken to by and
//     the tokens that it gave.
//   - host: a server by its name and port, with its connections, its limit of
//     requests, its Retry-After and whether it answers. Endpoints, token servers
//     and storage share hosts.
//   - place: what a cooldown is for: a mirror, or one repository of it.
//   - location: a URL that a request can be sent to, with what may be sent there
//     and how long it is good: a redirect makes one of another.
//   - visit: a request to an endpoint, which is sent again with what its server
//     wants to be shown.
//   - trouble: what is wrong with places that a credential may be in; they count
//     as missing.
//   - extra: what lies beside an image, and belongs to an artifact.
//   - wire: how connections are made on behalf of a site: certificates, proxy,
//     timeout.
//
// # Locks
//
// A ctxMutex is held while a server or a function of Options is asked; the
// holder of one may lock those to its right, and may wait for a slot of a host:
//
//	blobCopy.finding → endpoint.probing
//	blobCopy.finding → tokenCache.fetching → that of the files (Options.readFiles)
//	Repository.endpoints of another tag → Repository.endpoints → that of the files
//
// The holder of one of Client.offers, which a server is asked under, locks none.
//
// A slot is held until the body of an answer is closed; its holder waits for no
// other slot. A sync.Mutex is held for moments, and nobody is asked under it:
//
//	blob.mu → blobCopy.mu → Client.mu
//	hostPool.mu → host.mu, health.mu
//	outgoing.mu → sending.mu
//
// All others are locked last. StateChanged is called under health.mu, and Logf
// may be called under any.
package registry
