package registry

import (
	"context"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
)

// Options are the settings of a Client. The zero value of each field means
// its default.
type Options struct {
	// Sites returns the servers to ask for an image. Default: those of the files
	// of podman, docker and containerd on this machine, which are read when the
	// first request needs them; see hosts.ConfigFiles.
	Sites hosts.SiteFunc
	// Credential looks up credentials. Default: the files and helpers of podman
	// and docker on this machine; see hosts.AuthFiles.
	Credential hosts.CredentialFunc
	// Fallback looks up credentials where Credential has none, and where a server
	// refuses the one that Credential has. Default: there are no others.
	Fallback hosts.CredentialFunc
	// TLSVerify says how a registry is reached. Default (nil): https with a
	// verified certificate, but a registry on loopback may answer plain
	// http. True: verified https, on loopback too. False: any certificate
	// will do, and plain http where https is not spoken.
	TLSVerify *bool
	// AllowPrivate lets a server send its readers, for a blob or for a token, to
	// addresses nearer to this machine than its own: of a private network, of
	// the same link, of this machine. Default: no. A server that the user named,
	// as the registry, as a mirror or by certificates for it in CertDirs, may be
	// anywhere. See docs/registries.md.
	AllowPrivate bool
	// CertDirs are the directories of certificates. An empty list that is not
	// nil is none. Default: hosts.DefaultCertDirs.
	CertDirs hosts.CertDirs
	// UserAgent names the program to registries. Default: imgfs.
	UserAgent string
	// Logf gets a line for everything out of the ordinary, from any goroutine.
	// Default: none.
	Logf func(format string, args ...any)
	// Warnf gets a line for what somebody should mend though all goes well, from any
	// goroutine: a file of credentials or a helper that is of no use, which is told
	// once as long as it stays so, or what is said of a manifest and is not so.
	// Default: Logf.
	Warnf func(format string, args ...any)
	// Tracef gets a line for every request that was answered: method, URL
	// without its query, range, status and time. Default: none.
	Tracef func(format string, args ...any)
	// StateChanged is called when a server that is asked stops answering, with
	// the reason, and when it answers again; see HostState. It must return soon,
	// and not use the Client. Default: nothing is called.
	StateChanged func(host string, up bool, reason string)
	// Proxy chooses the proxy of a request. Default: HTTP_PROXY,
	// HTTPS_PROXY and NO_PROXY decide.
	Proxy func(*http.Request) (*url.URL, error)

	// DialTimeout bounds connecting, and again the TLS handshake. Default:
	// 10 s.
	DialTimeout time.Duration
	// HeaderTimeout bounds the wait for the head of an answer, unless something
	// was put: a server may digest that for ReadTimeout. Default: 15 s.
	HeaderTimeout time.Duration
	// StallTimeout is how long the body of an answer may bring nothing, or a
	// server take nothing of the body of a request, before the request is given
	// up and, where that does no harm, sent again. Default: 10 s.
	StallTimeout time.Duration
	// ReadTimeout is how long a read or request goes on trying without
	// progress before it fails. Less than 1 KiB a second on average, in all
	// requests of the Client together, is none: a body that brings less for so
	// long is given up as well. Default: 60 s. Negative: for ever.
	ReadTimeout time.Duration
	// Tries is how often in a row a server may fail to answer before a read
	// fails. A server that cannot be reached at all does not count when a
	// blob is read: only ReadTimeout ends that. Default: 6.
	Tries int
	// MinBackoff is about how long to wait before the second try; each
	// further wait is twice as long, up to MaxBackoff. Defaults: 100 ms and
	// 5 s.
	MinBackoff, MaxBackoff time.Duration
	// MaxRequests is the most requests that one host has at a time. Default:
	// 16.
	MaxRequests int
	// LocationLife is how long a redirect that does not say when it expires
	// is used. Default: 60 s.
	LocationLife time.Duration
	// MirrorTimeout is how long a mirror may take to begin an answer while
	// there is another place to ask. Default: 5 s.
	MirrorTimeout time.Duration
	// MirrorCooldown is how long a mirror that failed is not asked again, as long
	// as another place answers. Default: 5 min.
	MirrorCooldown time.Duration
	// RangeRest is how long a server that refused a range, and then served the
	// whole blob, is not asked for ranges; one that has served ranges is not for
	// a part of that. Default: 5 min.
	RangeRest time.Duration
	// LocationMargin is how long before it expires a redirect is no longer
	// used. Default: 5 s.
	LocationMargin time.Duration

	active   *atomic.Int64 // requests under way
	warnings *warnings     // by Warnf
}

// withDefaults returns a copy of o in which every field is set.
func (o *Options) withDefaults() *Options {
	var d Options
	if o != nil {
		d = *o
	}
	if d.Logf == nil {
		d.Logf = func(string, ...any) {}
	}
	if d.Warnf == nil {
		d.Warnf = d.Logf
	}
	if d.Tracef == nil {
		d.Tracef = func(string, ...any) {}
	}
	if d.StateChanged == nil {
		d.StateChanged = func(string, bool, string) {}
	}
	if d.CertDirs == nil {
		d.CertDirs = hosts.DefaultCertDirs()
	}
	if d.UserAgent == "" {
		d.UserAgent = "imgfs"
	}
	if d.Proxy == nil {
		d.Proxy = environmentProxy
	}
	setDefault(&d.DialTimeout, 10*time.Second)
	setDefault(&d.HeaderTimeout, 15*time.Second)
	setDefault(&d.StallTimeout, 10*time.Second)
	if d.ReadTimeout == 0 {
		d.ReadTimeout = 60 * time.Second
	}
	setDefault(&d.Tries, defaultTries)
	setDefault(&d.MinBackoff, 100*time.Millisecond)
	setDefault(&d.MaxBackoff, 5*time.Second)
	setDefault(&d.MaxRequests, 16)
	setDefault(&d.LocationLife, 60*time.Second)
	setDefault(&d.MirrorTimeout, 5*time.Second)
	setDefault(&d.MirrorCooldown, 5*time.Minute)
	setDefault(&d.RangeRest, 5*time.Minute)
	setDefault(&d.LocationMargin, 5*time.Second)
	d.readFiles()
	d.active, d.warnings = new(atomic.Int64), newWarnings(d.Warnf)
	return &d
}

// readFiles has the files of this machine stand in for the functions that are
// not set. They are read when they are first needed.
func (o *Options) readFiles() {
	conf := remembered(func(context.Context) (*hosts.Configuration, error) {
		return (&hosts.ConfigFiles{Logf: o.Logf}).Load()
	})
	if o.Sites == nil {
		o.Sites = func(ctx context.Context, ref remote.Reference) ([]*hosts.Site, error) {
			c, err := conf(ctx)
			if err != nil {
				return nil, err
			}
			return c.Sites(ctx, ref)
		}
	}
	if o.Credential == nil {
		o.Credential = func(ctx context.Context, registry, repository string) (hosts.Credential, error) {
			c, err := conf(ctx)
			if err != nil {
				return hosts.Credential{}, err
			}
			return c.Credentials("")(ctx, registry, repository)
		}
	}
}

// defaultTries is the default of Options.Tries.
const defaultTries = 6

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}
