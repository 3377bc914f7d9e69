package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/imgfs/imgfs/remote/registry/hosts"
	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

var (
	// ErrBrokenCredential: the registry refuses a stranger, and a file or helper
	// that may have a credential for it is of no use. The text says why. It is
	// remote.ErrUnauthorized as well.
	ErrBrokenCredential error = &kind{remote.ErrUnauthorized}
	// ErrRefusedCredential: the registry, or who gives tokens for it, refuses the
	// credential. The text says which. It is remote.ErrUnauthorized as well.
	ErrRefusedCredential error = &kind{remote.ErrUnauthorized}
	// ErrUnknownLogin: the registry wants a login of a kind that imgfs does not
	// have. It is remote.ErrUnauthorized as well.
	ErrUnknownLogin error = &kind{remote.ErrUnauthorized}
)

// A kind is one of the errors that another one stands for, with its text.
type kind struct{ error }

func (k *kind) Unwrap() error { return k.error }

// errNoLogin: there is nothing to show that the registry would take.
var errNoLogin = &kind{remote.ErrUnauthorized}

// An authorization is what is shown with a request.
type authorization struct {
	header string // the value of Authorization; "": nothing is shown
	basic  bool   // it is the credential itself
	key    string // the scopes that it was got for

	// used says that it was got with a credential, and origin where that is from,
	// if that is known.
	used   bool
	origin string
	// cred is that credential, and last says that there is no other in its place.
	cred hosts.Credential
	last bool
	// trouble says what is wrong with other credentials, and loud that this is to
	// be told if all goes well without them.
	trouble string
	loud    bool

	ends time.Time // when its life is over; zero: it does not say
}

// over tells whether its life is over, as it was said to be.
func (a *authorization) over() bool { return !a.ends.IsZero() && time.Now().After(a.ends) }

// A login is a credential that was looked up.
type login struct {
	cred    hosts.Credential
	trouble string // with the places where others may have been
	loud    bool   // the user should know of it
	last    bool   // no other one can take its place
}

// lookUp asks for the credential each time that it is needed, so that one that
// has expired is replaced by what its helper says now. It is that of the server,
// not of the registry that the server stands in for. Places to look in that are of
// no use count as missing; the error says that ctx has ended.
func (e *endpoint) lookUp(ctx context.Context) (login, error) {
	c, last, err := e.credential(ctx)
	l := login{cred: c, trouble: troubleText(err), last: last}
	var broken *hosts.BrokenError
	l.loud = err != nil && (!errors.As(err, &broken) || broken.Loud)
	if err != nil && ctx.Err() != nil {
		if givenUp(ctx) {
			return login{}, context.Cause(ctx)
		}
		return login{}, &fault{class: ErrBrokenCredential, text: l.trouble}
	}
	if l.trouble != "" && !l.loud {
		e.client.opts.Logf("%s", l.trouble)
	}
	e.client.trouble(e, l.trouble)
	if !c.Empty() {
		e.keepSecure()
		e.credentials.note(c)
	}
	return l, nil
}

// lookUpOnce is lookUp that finds nothing once in an attempt: a server can offer
// several ways to log in, and a helper that is of no use can take its time.
func (e *endpoint) lookUpOnce(ctx context.Context) (login, error) {
	a := attemptOf(ctx)
	if l, ok := a.without[e]; ok {
		return l, nil
	}
	l, err := e.lookUp(ctx)
	if err == nil && l.cred.Empty() {
		if a.without == nil {
			a.without = make(map[*endpoint]login)
		}
		a.without[e] = l
	}
	return l, err
}

// troubleText returns the text of an error of hosts.CredentialFunc.
func troubleText(err error) string {
	var broken *hosts.BrokenError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &broken): // which is made for it
		return printable.Line(err.Error())
	}
	return scrub.Text(err.Error())
}

// trouble notes what is wrong with the credentials of an endpoint now. What is not
// wrong any more is told again when it is the next time.
func (c *Client) trouble(e *endpoint, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.trouble != text {
		c.opts.warnings.forget(e.trouble + "; going on without it")
		e.trouble = text
	}
}

// tell warns of what is wrong with credentials, when all goes well without them.
func (e *endpoint) tell(a *authorization) {
	if a.trouble != "" && a.loud {
		e.client.opts.warnings.tell(a.trouble + "; going on without it")
	}
}

// ofOrigin names a credential.
func ofOrigin(origin string) string {
	if origin == "" {
		return "the credential"
	}
	return "the credential of " + scrub.Text(origin)
}

// explain adds to a refusal what the request was sent with: which credential is
// refused, and what is wrong with those that were not sent.
func (a *attempt) explain(f *fault) *fault {
	denied := errors.Is(f, remote.ErrUnauthorized)
	if a.sent == nil || f.status == 0 || !denied && !errors.Is(f, remote.ErrNotFound) {
		return f
	}
	said := *f
	s := a.sent
	switch {
	case denied && s.used && s.basic && f.status == 401:
		said.text += "; " + ofOrigin(s.origin) + " is refused"
		said.class = ErrRefusedCredential
	case denied && s.used:
		said.text += "; it was asked with " + ofOrigin(s.origin)
	}
	if s.trouble != "" {
		if said.text = s.trouble + "; without it: " + said.text; denied {
			said.class = ErrBrokenCredential
		}
	}
	return &said
}

// noLogin says that a server wants a login and there is no credential.
func (l *login) noLogin(host string) *fault {
	f := &fault{class: errNoLogin, unmet: true, text: fmt.Sprintf("%s wants a login, and there is no credential for it", host)}
	if l.trouble != "" {
		f.class, f.text = ErrBrokenCredential, l.trouble+"; without it: "+f.text
	}
	return f
}
