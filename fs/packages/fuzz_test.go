package packages

import (
	"errors"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/internal/layertest"
)

// FuzzRead: of a database of any bytes come packages that have names and versions, or an
// error that says whose fault it is.
func FuzzRead(f *testing.F) {
	paths := []string{"/var/lib/dpkg/status", "/var/lib/dpkg/status.d/a", "/lib/apk/db/installed", "/var/lib/rpm/Packages.db", "/var/lib/rpm/rpmdb.sqlite"}
	f.Add(uint8(0), []byte(states()))
	f.Add(uint8(1), []byte("Package: a\nVersion: 1\n"))
	f.Add(uint8(2), []byte("P:a\nV:1-r0\nA:x86_64\n\nP:b\nV:2\n\n"))
	f.Add(uint8(3), ndbOf(header(map[uint32]any{tagName: "a", tagVersion: "1", tagRelease: "2"})))
	f.Add(uint8(4), []byte("SQLite format 3\x00"+strings.Repeat("\x00", 500)))
	f.Fuzz(func(t *testing.T, which uint8, content []byte) {
		for _, db := range read(t, layertest.File(paths[int(which)%len(paths)][1:], string(content))) {
			if db.Err != nil && !errors.Is(db.Err, ErrFormat) && !errors.Is(db.Err, ErrTooLarge) && !errors.Is(db.Err, ErrUnsupported) {
				t.Errorf("%s: %v", db.Path, db.Err)
			}
			for _, p := range db.Packages {
				if p.Name == "" || p.Version == "" {
					t.Errorf("%s: got %+v", db.Path, p)
				}
				Compare(db.Kind, db.Packages, []Package{{p.Name, "1.0", "x"}})
				break // one of them, as the time of Compare grows with all
			}
		}
	})
}
