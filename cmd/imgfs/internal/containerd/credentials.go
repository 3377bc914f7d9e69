package containerd

import (
	"context"
	"slices"
	"sync"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry/hosts"
)

const (
	// maxRepositories is how many repositories credentials are kept for.
	maxRepositories = 512
	// maxPulls is how many pulls of one repository with different credentials are followed
	// at a time.
	maxPulls = 16
	// maxCredential is how many bytes one may have. The tokens of clouds have some thousands.
	maxCredential = 16 << 10
)

// Credentials are those that images were pulled with, for the repositories of these images,
// in memory alone. A credential counts once containerd has got something with it: what a
// pull brings that is refused never takes the place of one that works, and is forgotten
// with it. Those of the repositories go that were used least recently. It is safe for
// concurrent use; the zero value has none.
type Credentials struct {
	mu    sync.Mutex
	all   map[repository]*kept
	clock int64 // counts uses
}

// A repository is one of a registry, as remote.Reference has them.
type repository struct{ registry, name string }

// kept are the credentials for a repository.
type kept struct {
	good  hosts.Credential   // that something was got with; Empty: none
	tried []hosts.Credential // those of pulls that are under way, the latest one last
	used  int64              // when they were used last, by the clock
}

// repositoryOf returns the repository of an image, as clients of containerd name it.
func repositoryOf(image string) (repository, bool) {
	ref, err := remote.ParseReference(image)
	return repository{ref.Registry, ref.Repository}, err == nil
}

// fits reports whether a credential is kept.
func fits(c hosts.Credential) bool {
	size := len(c.User) + len(c.Password) + len(c.IdentityToken) + len(c.RegistryToken)
	return !c.Empty() && size <= maxCredential
}

// Pulling notes that an image is being pulled with a credential. done is to be called at the
// end of that, and says whether it was pulled.
func (s *Credentials) Pulling(image string, c hosts.Credential) (done func(ok bool)) {
	r, ok := repositoryOf(image)
	if !ok || !fits(c) {
		return func(bool) {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.touch(r)
	if len(k.tried) == maxPulls {
		k.tried = slices.Delete(k.tried, 0, 1)
	}
	k.tried = append(k.tried, c)
	return func(ok bool) { s.pulled(r, c, ok) }
}

// touch returns what is kept for a repository, and notes that it is used. It is called with
// mu held.
func (s *Credentials) touch(r repository) *kept {
	s.clock++
	k := s.all[r]
	if k == nil {
		if s.all == nil {
			s.all = map[repository]*kept{}
		}
		if len(s.all) >= maxRepositories {
			s.forgetOne()
		}
		k = &kept{}
		s.all[r] = k
	}
	k.used = s.clock
	return k
}

// forgetOne forgets what was used least recently. It is called with mu held.
func (s *Credentials) forgetOne() {
	var oldest repository
	least := s.clock
	for r, k := range s.all {
		if k.used < least {
			oldest, least = r, k.used
		}
	}
	delete(s.all, oldest)
}

// pulled notes how a pull has ended.
func (s *Credentials) pulled(r repository, c hosts.Credential, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.all[r]
	if k == nil {
		if !ok {
			return
		}
		k = s.touch(r) // it was forgotten meanwhile, for others
	}
	if i := slices.Index(k.tried, c); i >= 0 {
		k.tried = slices.Delete(k.tried, i, i+1)
	}
	if ok {
		k.good = c
	}
	if len(k.tried) == 0 && k.good.Empty() {
		delete(s.all, r)
	}
}

// Reached notes that containerd wants a snapshot of an image: what it is pulled with was good
// enough for the manifest. Of several pulls with different credentials nobody knows which.
func (s *Credentials) Reached(image string) {
	r, ok := repositoryOf(image)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.all[r]
	if k == nil || len(k.tried) == 0 || slices.ContainsFunc(k.tried, func(c hosts.Credential) bool { return c != k.tried[0] }) {
		return
	}
	k.good = k.tried[0]
}

// LookUp returns the credential for a repository: the latest one that something was got with,
// and without one that of the latest pull that is under way.
func (s *Credentials) LookUp(_ context.Context, registry, name string) (hosts.Credential, error) {
	return s.get(repository{registry, name}), nil
}

func (s *Credentials) get(r repository) hosts.Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.all[r]
	if k == nil {
		return hosts.Credential{}
	}
	s.touch(r)
	c := k.good
	if c.Empty() && len(k.tried) > 0 {
		c = k.tried[len(k.tried)-1]
	}
	if !c.Empty() {
		c.Origin = "the image's last pull"
	}
	return c
}

var _ hosts.CredentialFunc = (*Credentials)(nil).LookUp
