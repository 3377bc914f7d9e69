package directory

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// docs/cache-format.md, "The directory".
const (
	VersionFile = "version"
	LogName     = "imgfs.log"
	oldLogName  = LogName + ".old"

	Blobs    = "blobs"
	Meta     = "meta"
	Refs     = "refs"
	Indexes  = "indexes" // of package indexes
	Images   = "images"
	Profiles = "profiles"
	Verified = "verified"
	Kept     = "contents"
	Claims   = "claims"
	Tmp      = "tmp"

	spoolName = "spool-"
)

// IndexTemp begins the name of a layer index that is being written.
const IndexTemp = ".new-"

// IsAbandonedIndex reports whether a file in the directory of layer indexes is one
// that was being written by a process that has been killed: by its name, and because
// it has not been changed for longer than writing it takes.
func IsAbandonedIndex(name string, modified time.Time) bool {
	return isTemp(name, IndexTemp) && time.Since(modified) > unbornTime
}

// MaxRecord bounds the files of references, manifests, configs, images and profiles.
const MaxRecord = 16 << 20

// A kind is what a file in the directory is for.
type kind int

const (
	kindOther  kind = iota // whatever imgfs does not make
	KindSelf               // what the directory needs itself
	kindOwned              // what has an owner while it is locked
	KindBlob               // a blob file
	KindIndex              // a layer index
	kindUnborn             // a layer index that is being written
	kindMeta               // a manifest, config, reference, verification mark or profile
	KindImage              // an image record
	KindKept               // a kept file
)

// byDigest returns of what kind the files ALG/HEX of a directory are; kindOther
// if it has none such.
func byDigest(dir string) kind {
	switch dir {
	case Blobs:
		return KindBlob
	case Meta, Verified:
		return kindMeta
	case Indexes:
		return KindIndex
	case Kept:
		return KindKept
	case Claims:
		return kindOwned
	}
	return kindOther
}

// KindOf says what a regular file is for, by its name in the directory. Only
// names that imgfs makes have a kind: nothing else is ever removed.
func KindOf(name string) kind {
	top, rest, below := strings.Cut(name, "/")
	alg, base, deep := strings.Cut(rest, "/")
	switch {
	case !below && (name == VersionFile || name == LedgerName || name == LogName || name == oldLogName):
		return KindSelf
	case top == Tmp && isTemp(rest, "", spoolName, "imgfs-"+spoolName):
		return kindOwned
	case (top == Refs || top == Profiles) && isRecord(rest):
		return kindMeta
	case top == Images && isRecord(rest):
		return KindImage
	case top == Indexes && alg == string(digest.SHA256) && isTemp(base, IndexTemp):
		return kindUnborn
	case deep && isHex(base, sumSize(alg)):
		return byDigest(top)
	case deep && keyed(top):
		if hex, _, ok := cutKey(base); ok && isHex(hex, sumSize(alg)) {
			return byDigest(top)
		}
	}
	return kindOther
}

// keyBytes is how many bytes of a sum are a key.
const keyBytes = 8

// Key returns the key that names the files which belong to a sum, beside those that
// the digest of their blob names alone.
func Key(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:keyBytes]) }

// keyed reports whether files in a directory by digest may have a key.
func keyed(dir string) bool { return dir == Blobs || dir == Indexes || dir == Verified }

// cutKey cuts the name of a file into that of its blob, and a key.
func cutKey(base string) (hex, key string, ok bool) {
	hex, key, ok = strings.Cut(base, "-")
	return hex, key, ok && isHex(key, keyBytes)
}

// sumSize returns how many bytes a digest by an algorithm has, 0 for one that
// has no directory.
func sumSize(algorithm string) int {
	switch digest.Algorithm(algorithm) {
	case digest.SHA256:
		return 32
	case digest.SHA384:
		return 48
	case digest.SHA512:
		return 64
	}
	return 0
}

// isHex reports whether a name is so many bytes in hex, as imgfs writes them.
func isHex(name string, bytes int) bool {
	return bytes > 0 && len(name) == 2*bytes && strings.Trim(name, "0123456789abcdef") == ""
}

// isPart reports whether a directory, by its name in the directory, is one that
// imgfs makes.
func isPart(name string) bool {
	top, alg, below := strings.Cut(name, "/")
	if !below {
		return byDigest(top) != kindOther || top == Tmp || top == Refs || top == Images || top == Profiles
	}
	return byDigest(top) != kindOther && sumSize(alg) > 0
}

// isTemp reports whether a name is one of the prefixes and digits.
func isTemp(name string, prefixes ...string) bool {
	for _, p := range prefixes {
		if digits, ok := strings.CutPrefix(name, p); ok && digits != "" && strings.Trim(digits, "0123456789") == "" {
			return true
		}
	}
	return false
}

// isRecord reports whether a name is HEX.json.
func isRecord(name string) bool {
	sum, ok := strings.CutSuffix(name, ".json")
	return ok && isHex(sum, 32)
}

// DigestOf returns the digest that a path of the form …/ALG/HEX or …/ALG/HEX-KEY stands
// for.
func DigestOf(name string) (digest.Digest, bool) {
	hex := path.Base(name)
	if blob, _, ok := cutKey(hex); ok {
		hex = blob
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(path.Dir(name))), hex)
	return d, d.Validate() == nil
}

// KeyOf returns the key in a path of the form …/ALG/HEX-KEY; "" if it has none.
func KeyOf(name string) string {
	if _, key, ok := cutKey(path.Base(name)); ok {
		return key
	}
	return ""
}
