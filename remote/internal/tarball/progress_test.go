package tarball_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/tarball"
)

// Unpacking tells how far it is, and reading an archive that need not be unpacked
// tells nothing.
func TestProgress(t *testing.T) {
	content := []io.Reader{headerOf(t, "big", 8*mib), io.LimitReader(zeros{}, 8*mib)}
	packed := compressed(t, zstdOf, content...)
	for name, file := range map[string][]byte{"packed": packed, "plain": example(t)} {
		told, calls := int64(0), 0
		a, err := tarball.Open(t.Context(), write(t, file), &remote.ArchiveOptions{Progress: func(read, size int64) {
			calls++
			if read < told || read > size || size != int64(len(file)) {
				t.Errorf("%s: told of %d bytes of %d after %d", name, read, size, told)
			}
			told = read
		}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a.Close()
		if want := bytes.Equal(file, packed); (told == int64(len(file))) != want || (calls > 0) != want {
			t.Errorf("%s: told %d times, of %d of %d bytes at the end", name, calls, told, len(file))
		}
	}
}
