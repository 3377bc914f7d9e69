package hosts

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

// JoinBroken returns what several functions say is wrong, nil if nothing is, as one
// *BrokenError.
func JoinBroken(errs ...error) error {
	var broken BrokenError
	for _, err := range errs {
		broken.add(err)
	}
	if len(broken.Reasons) == 0 {
		return nil
	}
	return &broken
}

// add adds what a CredentialFunc says is wrong.
func (e *BrokenError) add(err error) {
	var broken *BrokenError
	switch {
	case err == nil:
	case errors.As(err, &broken):
		e.Reasons = append(e.Reasons, broken.Reasons...)
		e.Loud = e.Loud || broken.Loud
	default:
		e.Reasons = append(e.Reasons, &scrubbedError{err})
		e.Loud = true
	}
}

// A scrubbedError has a text that is fit for a message, whatever that of its cause is.
type scrubbedError struct{ cause error }

func (e *scrubbedError) Error() string { return scrub.Text(e.cause.Error()) }
func (e *scrubbedError) Unwrap() error { return e.cause }

// ParseAuth reads the auth of an entry of auths, and of clients of the container runtime
// interface: the base64 form of user:password. The error quotes nothing of it.
func ParseAuth(text string) (user, password string, err error) {
	plain, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		plain, err = base64.RawStdEncoding.DecodeString(text)
	}
	user, password, ok := strings.Cut(string(plain), ":")
	if err != nil || !ok {
		return "", "", errors.New("auth is not the base64 form of user:password")
	}
	// docker once padded passwords with zero bytes.
	return user, strings.TrimRight(password, "\x00"), nil
}

// IsServer reports whether the address of a server, as files and clients write it, is that
// of a registry: "https://index.docker.io/v1/" of "docker.io".
func IsServer(address, registry string) bool {
	host, _, _ := strings.Cut(canonicalKey(address), "/")
	return host == canonicalKey(registry)
}
