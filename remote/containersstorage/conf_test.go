package containersstorage_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestStorageConf: the file says where the store is, and which others there are; their
// layers may be below those of the first.
func TestStorageConf(t *testing.T) {
	more, first := newBuilder(t, "overlay"), newBuilder(t, "overlay")
	below := digest.FromBytes(more.simple("localhost/below:latest", tarOf(t, entry{name: "f", content: "below"})))
	more.save()
	first.save()
	conf := filepath.Join(t.TempDir(), "storage.conf")
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
	t.Setenv("STORAGE_DRIVER", "")
	t.Setenv("STORE", first.root)
	text := "[storage]\ndriver = \"overlay2\"\ngraphroot = \"$STORE\"\n[storage.options]\nadditionalimagestores = [\"/absent\", \"" + more.root + "\"]\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := open(t, "", "below")
	if err != nil {
		t.Fatal(err)
	}
	if desc, err := src.Resolve(t.Context()); err != nil || desc.Digest != below {
		t.Errorf("got %s and error %v, want %s", desc.Digest, err, below)
	}
	for _, bad := range []string{"[storage", "[storage]\ngraphroot = 7\n"} {
		if err := os.WriteFile(conf, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, "", "below"); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", filepath.Join(t.TempDir(), "absent"))
	if _, err := open(t, "", "below"); err == nil {
		t.Error("no error for a file that is named and not there")
	}
}
