package cache

import (
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// docs/cache-format.md, "The directory".
const (
	versionFile = "version"
	logName     = "imgfs.log"
	oldLogName  = logName + ".old"

	blobsDir    = "blobs"
	metaDir     = "meta"
	refsDir     = "refs"
	indexesDir  = "indexes" // of package indexes
	imagesDir   = "images"
	verifiedDir = "verified"
	keptDir     = "contents"
	claimsDir   = "claims"
	tmpDir      = "tmp"

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

// maxRecord bounds the files of references, manifests, configs and images.
const maxRecord = 16 << 20

// A kind is what a file in the directory is for.
type kind int

const (
	kindOther  kind = iota // whatever imgfs does not make
	kindSelf               // what the directory needs itself
	kindOwned              // what has an owner while it is locked
	kindBlob               // a blob file
	kindIndex              // a layer index
	kindUnborn             // a layer index that is being written
	kindMeta               // a manifest, config, reference or verification mark
	kindImage              // an image record
	kindKept               // a kept file
)

// byDigest returns of what kind the files ALG/HEX of a directory are; kindOther
// if it has none such.
func byDigest(dir string) kind {
	switch dir {
	case blobsDir:
		return kindBlob
	case metaDir, verifiedDir:
		return kindMeta
	case indexesDir:
		return kindIndex
	case keptDir:
		return kindKept
	case claimsDir:
		return kindOwned
	}
	return kindOther
}

// kindOf says what a regular file is for, by its name in the directory. Only
// names that imgfs makes have a kind: nothing else is ever removed.
func kindOf(name string) kind {
	top, rest, below := strings.Cut(name, "/")
	alg, base, deep := strings.Cut(rest, "/")
	switch {
	case !below && (name == versionFile || name == ledgerName || name == logName || name == oldLogName):
		return kindSelf
	case top == tmpDir && isTemp(rest, "", spoolName, "imgfs-"+spoolName):
		return kindOwned
	case top == refsDir && isRecord(rest):
		return kindMeta
	case top == imagesDir && isRecord(rest):
		return kindImage
	case top == indexesDir && alg == string(digest.SHA256) && isTemp(base, IndexTemp):
		return kindUnborn
	case deep && isHex(base, sumSize(alg)):
		return byDigest(top)
	}
	return kindOther
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
		return byDigest(top) != kindOther || top == tmpDir || top == refsDir || top == imagesDir
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

// digestOf returns the digest that a path of the form …/ALG/HEX stands for.
func digestOf(name string) (digest.Digest, bool) {
	d := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(path.Dir(name))), path.Base(name))
	return d, d.Validate() == nil
}
