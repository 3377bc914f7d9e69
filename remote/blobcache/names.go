package blobcache

import (
	"encoding/hex"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// docs/cache-format.md, "The directory".
const (
	versionFile = "version"
	logName     = "imgfs.log"
	oldLogName  = logName + ".old"

	blobsDir   = "blobs"
	metaDir    = "meta"
	refsDir    = "refs"
	indexesDir = "indexes" // of package layerindex
	imagesDir  = "images"
	claimsDir  = "claims"
	tmpDir     = "tmp"

	unbornName = ".new-" // begins that of a layer index that is being written
	spoolName  = "spool-"
)

// A kind is what a file in the directory is for.
type kind int

const (
	kindOther   kind = iota // whatever imgfs does not make
	kindKept                // what the directory needs itself
	kindOwned               // what has an owner while it is locked
	kindBlob                // a blob file
	kindIndex               // a layer index
	kindUnborn              // a layer index that is being written
	kindMeta                // a manifest, config, reference or verification mark
	kindImage               // an image record
	kindContent             // a content
)

// byDigest are the directories that have a file ALG/HEX for a digest.
var byDigest = map[string]kind{
	blobsDir: kindBlob, metaDir: kindMeta, verifiedDir: kindMeta, indexesDir: kindIndex, contentsDir: kindContent, claimsDir: kindOwned,
}

// kindOf says what a regular file is for, by its name in the directory. Only
// names that imgfs makes have a kind: nothing else is ever removed.
func kindOf(name string) kind {
	parts := strings.Split(name, "/")
	switch top := parts[0]; {
	case len(parts) == 1:
		switch top {
		case versionFile, spaceName, logName, oldLogName:
			return kindKept
		}
	case len(parts) == 2 && top == tmpDir && isTemp(parts[1], "", spoolName, "imgfs-"+spoolName):
		return kindOwned
	case len(parts) == 2 && top == refsDir && isRecord(parts[1]):
		return kindMeta
	case len(parts) == 2 && top == imagesDir && isRecord(parts[1]):
		return kindImage
	case len(parts) == 3 && top == indexesDir && parts[1] == string(digest.SHA256) && isTemp(parts[2], unbornName):
		return kindUnborn
	case len(parts) == 3:
		if _, ok := digestOf(name); ok {
			return byDigest[top]
		}
	}
	return kindOther
}

// isPart reports whether a directory, by its name in the directory, is one that
// imgfs makes.
func isPart(name string) bool {
	top, alg, below := strings.Cut(name, "/")
	if !below {
		_, ok := byDigest[top]
		return ok || top == tmpDir || top == refsDir || top == imagesDir
	}
	return byDigest[top] != kindOther && digest.Algorithm(alg).Available()
}

// parts returns the names of all directories that imgfs makes, but for the
// directory itself.
func parts() []string {
	all := []string{tmpDir, refsDir, imagesDir}
	for top := range byDigest {
		all = append(all, top)
		for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
			all = append(all, path.Join(top, alg.String()))
		}
	}
	return all
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
	raw, err := hex.DecodeString(sum)
	return ok && err == nil && len(raw) == 32 && strings.ToLower(sum) == sum
}

// digestOf returns the digest that a path of the form …/ALG/HEX stands for.
func digestOf(name string) (digest.Digest, bool) {
	d := digest.NewDigestFromEncoded(digest.Algorithm(path.Base(path.Dir(name))), path.Base(name))
	return d, d.Validate() == nil
}
