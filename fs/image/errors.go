package image

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
)

// ErrReopen: a tree was made of an index that turned out to be wrong. The index has
// been made again, but the tree's names cannot be changed.
var ErrReopen = errors.New("open the image again (a mount: unmount it first)")

// A Hint says what can help against an error. What to type for it depends on
// the program.
type Hint int

const (
	// HintCacheDir: another cache directory. Error.Advice may have a better one.
	HintCacheDir Hint = iota + 1
	// HintDefaultCacheDir: a cache directory must be named, as this user has
	// no default one.
	HintDefaultCacheDir
	// HintAuthFile: AuthFile must be one that is there.
	HintAuthFile
	// HintUnpack: the archive must be unpacked by the user, or the cache given
	// more room.
	HintUnpack
	// HintFetch: all of the image must be brought into the cache while there
	// is a network.
	HintFetch
	// HintAllowPrivate: Registry.AllowPrivate, if the host is to be trusted.
	HintAllowPrivate
	// HintCertificate: a certificate for the host, or Registry.TLSVerify.
	HintCertificate
	// HintTLSName and HintTLSDate: another certificate of the host, the right time on
	// this machine, or Registry.TLSVerify.
	HintTLSName
	HintTLSDate
	// HintTLSClient: a client certificate for the host.
	HintTLSClient
	// HintPlainHTTP: Registry.TLSVerify, or a setting that lets the host be
	// insecure.
	HintPlainHTTP
	// HintTag: one of Error.Tags.
	HintTag
	// HintLogin: credentials for the host.
	HintLogin
	// HintDamaged: the file or directory must be got or made again.
	HintDamaged
	// HintLoginAgain: other credentials for the host.
	HintLoginAgain
	// HintMendCredential: the file or helper that may have credentials for the host
	// must be of use, or another AuthFile.
	HintMendCredential
	// HintPush: credentials for the host that may write in Error.Name, a repository,
	// or another repository.
	HintPush
)

// An Error is an error with a hint. Its text is that of Err.
type Error struct {
	Err  error
	Hint Hint
	// Host is the registry, or the server at fault, and Name the image, or the
	// repository, if the hint is about one.
	Host, Name string
	// Tags are some tags that there are, with HintTag.
	Tags []string
	// Advice is what the system that refused has to say, with HintCacheDir.
	Advice string
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// isDigestError reports whether something has not the digest that it should have.
func isDigestError(err error) bool {
	return errors.Is(err, layerindex.ErrDigest) || errors.Is(err, layerindex.ErrDiffID) || errors.Is(err, remote.ErrDigest)
}

// advise gives an error a hint, if it depends on where the image is.
func (r *Resolved) advise(src remote.Source, err error) error {
	e := &Error{Err: err, Name: src.Name()}
	if e.Host = registry.HostOf(err); e.Host == "" {
		e.Host, _, _ = strings.Cut(src.Repository(), "/")
	}
	switch {
	case r.opts.Offline && errors.Is(err, remote.ErrUnavailable):
		e.Hint = HintFetch
	case errors.Is(err, registry.ErrPrivate):
		e.Hint = HintAllowPrivate
	case errors.Is(err, registry.ErrPlainHTTP), errors.Is(err, registry.ErrTLSPlain):
		e.Hint = HintPlainHTTP
	case errors.Is(err, registry.ErrTLSAuthority):
		e.Hint = HintCertificate
	case errors.Is(err, registry.ErrTLSName):
		e.Hint = HintTLSName
	case errors.Is(err, registry.ErrTLSDate):
		e.Hint = HintTLSDate
	case errors.Is(err, registry.ErrTLSClient):
		e.Hint = HintTLSClient
	case errors.Is(err, registry.ErrUnknownLogin):
		return err // nothing that is typed helps
	case errors.Is(err, registry.ErrBrokenCredential):
		e.Hint = HintMendCredential
	case errors.Is(err, registry.ErrRefusedCredential):
		e.Hint = HintLoginAgain
	case errors.Is(err, remote.ErrUnauthorized):
		e.Hint = HintLogin
	case r.Local() && isDigestError(err):
		e.Hint = HintDamaged
	default:
		return err
	}
	return e
}

// advisePush is advise for an error of writing in a repository.
func (r *Resolved) advisePush(to *registry.Repository, err error) error {
	err = r.advise(to, err)
	if e := (*Error)(nil); errors.As(err, &e) && (e.Hint == HintLogin || e.Hint == HintLoginAgain) {
		e.Hint, e.Name = HintPush, to.Repository()
	}
	return err
}

// adviseName is advise for an error of finding out what the image's name means.
func (r *Resolved) adviseName(ctx context.Context, src remote.Source, err error) error {
	if !errors.Is(err, remote.ErrNotFound) {
		return r.advise(src, err)
	}
	tags := r.otherTags(ctx)
	if len(tags) == 0 {
		return err
	}
	return &Error{Err: err, Hint: HintTag, Name: src.Name(), Tags: tags}
}

// otherTags returns some tags of the repository that has not the one that was asked
// for, if one request can tell.
func (r *Resolved) otherTags(ctx context.Context) []string {
	type lister interface {
		FirstTags(ctx context.Context) ([]string, error)
	}
	l, ok := r.found.(lister)
	if !ok || r.opts.Offline || ctx.Err() != nil {
		return nil
	}
	ref, err := remote.ParseReference(r.found.Name())
	if err != nil || ref.Tag == "" {
		return nil
	}
	tags, err := l.FirstTags(ctx)
	if err != nil || slices.Contains(tags, ref.Tag) { // then it is something else that is missing
		return nil
	}
	return tags
}
