package registry

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// What is wrong with a secure connection. Each is ErrTLS as well; HostOf says with
// whom.
var (
	// ErrTLSName: the certificate is for other names.
	ErrTLSName error = &kind{errCertificate}
	// ErrTLSDate: the certificate is not valid now.
	ErrTLSDate error = &kind{errCertificate}
	// ErrTLSAuthority: nobody whom this machine trusts has signed the certificate.
	ErrTLSAuthority error = &kind{errCertificate}
	// ErrTLSPlain: the server does not speak TLS, but perhaps plain http.
	ErrTLSPlain error = &kind{ErrTLS}
	// ErrTLSClient: the server wants a client certificate, or another one.
	ErrTLSClient error = &kind{ErrTLS}

	// errCertificate: the server's certificate is not to be trusted.
	errCertificate error = &kind{ErrTLS}
)

// tlsFault says what is wrong with a secure connection to a host, or nil if err is
// about something else. It is final: asking again does not mend it. shown says
// that a client certificate was shown.
func tlsFault(host string, shown bool, err error) *fault {
	var (
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  *net.OpError
	)
	f := &fault{class: ErrTLS, host: host}
	switch {
	case errors.As(err, &cert):
		f.text, f.class = certificateFault(host, cert, time.Now())
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		f.class, f.text = ErrTLSPlain, host+" answers in plain http, and not by https"
	case errors.As(err, &record):
		f.class, f.text = ErrTLSPlain, host+" does not speak TLS, but perhaps plain http"
	case errors.As(err, &alert) && alert.Op == "remote error":
		return alertFault(f, alert.Err.Error(), shown)
	case strings.Contains(err.Error(), "tls: server selected unsupported protocol version"):
		f.text = host + " speaks no newer TLS than 1.1, which is not secure"
	default:
		return nil
	}
	return f
}

// alertFault completes f for what the server says before it ends a handshake; nil
// if asking again may help. The texts are those of crypto/tls, whose numbers are
// not to be had; RFC 8446, 6.2, has them.
func alertFault(f *fault, reason string, shown bool) *fault {
	reason = strings.TrimPrefix(reason, "tls: ")
	switch reason {
	case "protocol version not supported", "insufficient security level":
		f.text = fmt.Sprintf("%s speaks no TLS that imgfs has, which is 1.2 and 1.3: %s", f.host, reason)
	case "handshake failure":
		f.text = fmt.Sprintf("%s has nothing in common with TLS 1.2 and 1.3 here, or wants a client certificate: %s", f.host, reason)
	case "unrecognized name":
		f.text = fmt.Sprintf("%s does not know itself by that name: %s", f.host, reason)
	case "certificate required", "bad certificate", "unsupported certificate", "revoked certificate", "expired certificate",
		"unknown certificate", "unknown certificate authority", "access denied":
		f.class, f.text = ErrTLSClient, fmt.Sprintf("%s wants a client certificate: %s", f.host, reason)
		if shown {
			f.text = fmt.Sprintf("%s refuses the client certificate: %s", f.host, reason)
		}
	default:
		return nil
	}
	return f
}

// certificateFault says what is wrong with a server's certificate: its name, its
// date or its authority. Only the first of these that crypto/x509 finds is in the
// error; a name is looked at beside a wrong date.
func certificateFault(host string, err *tls.CertificateVerificationError, now time.Time) (text string, class error) {
	var (
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
	)
	var leaf *x509.Certificate
	if len(err.UnverifiedCertificates) > 0 {
		leaf = err.UnverifiedCertificates[0]
	}
	switch {
	case errors.As(err.Err, &name) && name.Certificate != nil:
		return "the certificate of " + host + " is for " + namesOf(name.Certificate) + ", not for " + scrub.Text(name.Host), ErrTLSName
	case errors.As(err.Err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		text = dateOf(host, invalid.Cert, leaf, now)
		if leaf != nil && leaf.VerifyHostname(hostname(host)) != nil {
			text += "; and it is for " + namesOf(leaf)
		}
		return text, ErrTLSDate
	case errors.As(err.Err, &authority):
		c := leaf
		if authority.Cert != nil {
			c = authority.Cert
		}
		return authorityOf(host, c, len(err.UnverifiedCertificates), authority), ErrTLSAuthority
	}
	return "the certificate of " + host + " is not valid: " + scrub.Text(strings.TrimPrefix(err.Err.Error(), "x509: ")), errCertificate
}

func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// namesOf lists the names that a certificate is for.
func namesOf(c *x509.Certificate) string {
	const most = 5
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name at all (a common name does not count)"
	}
	for i, name := range names {
		names[i] = scrub.Text(name)
	}
	if more := len(names) - most; more > 0 {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d others", more)
	}
	return strings.Join(names, ", ")
}

// dateOf says when a certificate is valid; it may be one that signed the server's.
func dateOf(host string, c, leaf *x509.Certificate, now time.Time) string {
	const form = "2006-01-02 15:04 UTC"
	what := "the certificate of " + host
	if leaf != nil && !c.Equal(leaf) {
		what = "the certificate of " + nameOf(c.Subject.CommonName, c.Subject.String()) + ", which has signed that of " + host + ","
	}
	clock := "; this machine's clock says " + now.UTC().Format(form)
	if now.Before(c.NotBefore) {
		return what + " is valid only from " + c.NotBefore.UTC().Format(form) + " on" + clock
	}
	return what + " has expired on " + c.NotAfter.UTC().Format(form) + clock
}

// authorityOf says who has signed a certificate. sent is how many the server sent.
func authorityOf(host string, c *x509.Certificate, sent int, err x509.UnknownAuthorityError) string {
	if c == nil {
		return "the certificate of " + host + " is signed by nobody whom this machine trusts"
	}
	var text string
	switch issuer := nameOf(c.Issuer.CommonName, c.Issuer.String()); {
	case bytes.Equal(c.RawIssuer, c.RawSubject) && sent <= 1:
		text = "the certificate of " + host + " is signed by itself, and this machine does not trust it"
	default:
		text = "the certificate of " + host + " is signed by " + issuer + ", whom this machine does not trust"
		if sent <= 1 {
			text += " (or the server leaves out a certificate in between)"
		}
	}
	if _, why, ok := strings.Cut(err.Error(), "(possibly because of "); ok {
		text += "; possibly because of " + scrub.Text(strings.TrimSuffix(why, ")"))
	}
	return text
}

// nameOf returns the first text that says something, quoted.
func nameOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return `"` + scrub.Text(text) + `"`
		}
	}
	return "somebody without a name"
}
