package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote/printable"
	"github.com/imgfs/imgfs/remote/registry/hosts"
)

// A question and its answer go over a socket, each as JSON: which credential has a
// repository of a registry? There is one question a connection.
type question struct {
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
}

// An answer has bytes, as a password need not be UTF-8.
type answer struct {
	User          []byte `json:"user,omitempty"`
	Password      []byte `json:"password,omitempty"`
	IdentityToken []byte `json:"identityToken,omitempty"`
	RegistryToken []byte `json:"registryToken,omitempty"`
	Origin        string `json:"origin,omitempty"`
}

func newAnswer(c hosts.Credential) answer {
	return answer{[]byte(c.User), []byte(c.Password), []byte(c.IdentityToken), []byte(c.RegistryToken), c.Origin}
}

func (a answer) credential() hosts.Credential {
	return hosts.Credential{User: string(a.User), Password: string(a.Password), IdentityToken: string(a.IdentityToken),
		RegistryToken: string(a.RegistryToken), Origin: a.Origin}
}

const (
	// maxQuestion bounds the bytes of a question, and maxAnswer those of an answer.
	maxQuestion = 64 << 10
	maxAnswer   = 2 * maxCredential
	// talkLimit is how long one may take.
	talkLimit = 5 * time.Second
)

// A CredentialServer answers, on a socket for this user alone, which credential images of a
// repository were pulled with. Those who ask are the programs that serve mounts: they need
// credentials for as long as they run, and those that they get are the latest ones.
type CredentialServer struct {
	listener    net.Listener
	credentials *Credentials
	under       sync.WaitGroup
}

// ServeCredentials makes the socket at a path, in place of one that nobody listens on.
func ServeCredentials(ctx context.Context, path string, credentials *Credentials) (*CredentialServer, error) {
	l, err := ListenAt(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("socket for credentials: %w", err)
	}
	s := &CredentialServer{listener: l, credentials: credentials}
	s.under.Go(s.serve)
	return s, nil
}

// Close removes the socket, and waits for answers that are under way.
func (s *CredentialServer) Close() error {
	err := s.listener.Close()
	s.under.Wait()
	return err
}

func (s *CredentialServer) serve() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // for want of descriptors
			time.Sleep(100 * time.Millisecond)
			continue
		}
		s.under.Go(func() { s.answer(conn) })
	}
}

// answer answers the question of a connection. Who asks what cannot be understood gets no
// answer.
func (s *CredentialServer) answer(conn net.Conn) {
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(talkLimit)) != nil {
		return
	}
	var q question
	if json.NewDecoder(io.LimitReader(conn, maxQuestion)).Decode(&q) != nil {
		return
	}
	c := s.credentials.get(repository{q.Registry, q.Repository})
	_ = json.NewEncoder(conn).Encode(newAnswer(c)) // who asked may have ended
}

// AskAt returns how credentials are looked up with the CredentialServer at a path. That
// nobody answers there is told when a registry refuses to go on without.
func AskAt(path string) hosts.CredentialFunc {
	return func(ctx context.Context, registry, repository string) (hosts.Credential, error) {
		c, err := ask(ctx, path, question{registry, repository})
		if err != nil {
			return hosts.Credential{}, &hosts.BrokenError{Reasons: []error{
				fmt.Errorf("imgfs snapshotter, which has the credentials of pulls, does not answer: %s", printable.Line(err.Error()))}}
		}
		return c, nil
	}
}

func ask(ctx context.Context, path string, q question) (hosts.Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, talkLimit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return hosts.Credential{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var a answer
	if err = json.NewEncoder(conn).Encode(q); err == nil {
		err = json.NewDecoder(io.LimitReader(conn, maxAnswer)).Decode(&a)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return a.credential(), err
}
