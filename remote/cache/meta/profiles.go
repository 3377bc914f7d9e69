package meta

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// profileOf is of whom a profile says that it is: docs/profile-format.md. The cache knows no
// more of it.
type profileOf struct {
	Repository string `json:"repository"`
	Platform   string `json:"platform"`
}

func (p profileOf) path() string {
	return path.Join(directory.Profiles, ProfileName(p.Repository, p.Platform)+".json")
}

// ProfileName returns what the profile of a repository's images for a platform is called,
// in hex: docs/cache-format.md, "Profiles".
func ProfileName(repository, platform string) string {
	sum := sha256.Sum256([]byte(repository + "\n" + platform + "\n"))
	return hex.EncodeToString(sum[:])
}

// Profile returns what is kept of what programs read first of the images of a repository for
// a platform, as KeepProfile was given it: nil if there is nothing.
func (c *Cache) Profile(repository, platform string) []byte {
	data, _, err := c.dir.Files().ReadFile(profileOf{repository, platform}.path(), directory.MaxRecord)
	if err != nil {
		return nil
	}
	return data
}

// KeepProfile keeps a profile, which says of itself what it is of, in place of the one
// before, if budget and disk take it.
func (c *Cache) KeepProfile(repository, platform string, data []byte) {
	c.dir.KeepFile(profileOf{repository, platform}.path(), data)
}

// LockProfiles keeps others who call it from changing profiles until unlock. A profile is a hint:
// where there is no lock in two seconds the caller goes on without one.
func (c *Cache) LockProfiles() (unlock func()) {
	d, err := c.dir.Files().OpenDir(directory.Profiles, true)
	if err != nil {
		return func() {}
	}
	for end := time.Now().Add(2 * time.Second); directory.Flock(d, unix.LOCK_EX|unix.LOCK_NB) != nil && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	return func() { d.Close() }
}

// RemoveProfile removes a profile. It reports whether there was one.
func (c *Cache) RemoveProfile(repository, platform string) (bool, error) {
	err := c.dir.Files().Remove(profileOf{repository, platform}.path())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// rightProfile reports whether data says that it is a profile of this name.
func rightProfile(name string, data []byte) bool {
	var p profileOf
	return json.Unmarshal(data, &p) == nil && p.path() == name
}
