package directory

import (
	"strings"
	"testing"
)

// TestKindOf: only names that imgfs makes have a kind.
func TestKindOf(t *testing.T) {
	anyHex := strings.Repeat("0a", 32) // a name as digests have it
	anyKey := anyHex + "-" + anyHex[:16]
	for want, names := range map[kind][]string{
		KindSelf:   {"version", "space", "imgfs.log", "imgfs.log.old"},
		kindOwned:  {"tmp/1", "tmp/4294967295", "tmp/spool-12", "tmp/imgfs-spool-7", "claims/sha256/" + anyHex},
		KindBlob:   {"blobs/sha256/" + anyHex, "blobs/sha512/" + anyHex + anyHex, "blobs/sha256/" + anyKey},
		KindIndex:  {"indexes/sha256/" + anyHex, "indexes/sha256/" + anyKey},
		kindUnborn: {"indexes/sha256/.new-123"},
		kindMeta:   {"meta/sha256/" + anyHex, "verified/sha256/" + anyHex, "verified/sha256/" + anyKey, "refs/" + anyHex + ".json"},
		KindImage:  {"images/" + anyHex + ".json"},
		KindKept:   {"contents/sha256/" + anyHex},
		kindOther: {"", "a", "version.old", "VERSION", "tmp", "tmp/", "tmp/a", "tmp/1a", "tmp/1/2", "tmp/spool-", "tmp/spool-x", "tmp/-1", "tmp/.1",
			"blobs", "blobs/" + anyHex, "blobs/sha256", "blobs/sha256/" + anyHex[1:], "blobs/sha256/" + anyHex + "0", "blobs/sha256/" + strings.ToUpper(anyHex),
			"blobs/sha256/" + anyHex + "/x", "blobs/sha512/" + anyHex, "blobs/md5/" + anyHex[:32], "blobs//" + anyHex, "blob/sha256/" + anyHex,
			"indexes/sha512/.new-1", "indexes/sha256/.new-", "indexes/sha256/.new-x", "images/" + anyHex, "images/cat.json", "refs/sha256/" + anyHex,
			"contents/sha256/x", "photos/sha256/" + anyHex, "contents/sha256/" + anyKey, "meta/sha256/" + anyKey, "claims/sha256/" + anyKey,
			"blobs/sha256/" + anyKey + "0", "blobs/sha256/" + anyHex + "-", "blobs/sha256/" + strings.ToUpper(anyKey), "blobs/sha512/" + anyKey,
			"indexes/sha256/" + anyHex[1:] + "-" + anyHex[:16], "blobs/sha256/" + anyKey + "-" + anyHex[:16], "blobs/sha256/-" + anyHex[:16]},
	} {
		for _, name := range names {
			if got := KindOf(name); got != want {
				t.Errorf("kindOf(%q) = %d, want %d", name, got, want)
			}
		}
	}
}
