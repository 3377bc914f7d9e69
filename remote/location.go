package remote

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The transports, in skopeo's spelling: the kinds of place that an image
// comes from.
const (
	// TransportDocker is a registry: docker://REF, or REF alone.
	TransportDocker = "docker"
	// TransportOCI is an OCI image layout in a directory: oci:DIR[:TAG].
	TransportOCI = "oci"
	// TransportOCIArchive is a tar file of an OCI image layout:
	// oci-archive:FILE[:TAG].
	TransportOCIArchive = "oci-archive"
	// TransportDockerArchive is a file as docker save writes it:
	// docker-archive:FILE[:REF].
	TransportDockerArchive = "docker-archive"
)

// A Location says where an image is, as the user names it.
type Location struct {
	// Transport is one of the Transport constants.
	Transport string
	// Path is the directory or file. For TransportDocker it is the
	// reference, for ParseReference.
	Path string
	// Image selects one image of a directory or file: a tag, "@" and a
	// digest, or for docker-archive also a reference; "@" and a number is
	// the image at that place, from 0. Empty means the only one.
	Image string
}

// String returns l as ParseLocation takes it back.
func (l Location) String() string {
	switch {
	case l.Transport == TransportDocker:
		return "docker://" + l.Path
	case l.Image == "":
		return l.Transport + ":" + l.Path
	}
	return l.Transport + ":" + l.Path + ":" + l.Image
}

// ParseLocation reads the name of an image with skopeo's transports. Without
// one it is a reference to a registry, which is not looked at here, except
// that Path is not empty.
//
// A word before the first colon that is one of skopeo's transports is that:
// "oci:8080/x" is the directory 8080/x, "dir:latest" is refused with
// ErrUnsupported, and docker://dir:latest is the image. The one exception is
// "docker:", a transport only before "//": docker:dind is a well-known image.
//
// As in skopeo the directory or file ends at the first colon, so it has
// none in its own name. DIR@sha256:… is DIR:@sha256:….
func ParseLocation(s string) (Location, error) {
	if ref, ok := strings.CutPrefix(s, "docker://"); ok {
		return registryLocation(s, ref)
	}
	transport, rest, ok := strings.Cut(s, ":")
	if !ok {
		return registryLocation(s, s)
	}
	switch {
	case ofFiles(transport):
		return fileLocation(transport, rest)
	case unsupported(transport):
		instead := ""
		if _, err := ParseReference(s); err == nil {
			instead = "; for an image of that name in a registry write " + quote("docker://"+s)
		}
		return Location{}, fmt.Errorf("%w: %s: imgfs does not read %s:, only docker://, oci:, oci-archive: and docker-archive:%s", ErrUnsupported, quote(s), transport, instead)
	}
	return registryLocation(s, s)
}

// ofFiles reports whether a word is a transport whose images lie on this machine.
func ofFiles(transport string) bool {
	return transport == TransportOCI || transport == TransportOCIArchive || transport == TransportDockerArchive
}

// unsupported reports whether a word is a transport of skopeo's that imgfs does
// not read.
func unsupported(transport string) bool {
	switch transport {
	case "dir", "containers-storage", "docker-daemon", "ostree", "sif", "tarball":
		return true
	}
	return false
}

// CutPath splits IMAGE:/PATH, the name of an image and a path in it that begins
// with a slash, at the first ":/" behind the transport. No name of an image has one
// there: a tag does not begin with a slash, and neither does the name by which a
// layout or an archive has an image. found tells whether there is a path.
//
// What begins with a transport that imgfs does not read, or with the scheme of a
// URL, has none: it is for ParseLocation and ParseReference to refuse.
func CutPath(s string) (image, path string, found bool) {
	transport, rest, _ := strings.Cut(s, ":")
	switch at := len(s) - len(rest); {
	case strings.HasPrefix(s, "docker://"):
		rest = s[len("docker://"):]
	case ofFiles(transport):
	case unsupported(transport), strings.HasPrefix(s[at:], "//") && slices.Contains([]string{"http", "https", "file"}, transport):
		return s, "", false
	default:
		rest = s
	}
	before, after, found := strings.Cut(rest, ":/")
	if !found || before == "" {
		return s, "", false
	}
	return s[:len(s)-len(rest)] + before, "/" + after, true
}

func registryLocation(s, ref string) (Location, error) {
	if ref == "" {
		return Location{}, fmt.Errorf("%w: %s names no image", ErrReference, quote(s))
	}
	return Location{Transport: TransportDocker, Path: ref}, nil
}

func fileLocation(transport, s string) (Location, error) {
	l := Location{Transport: transport}
	if dir, dgst, ok := cutDigest(s); ok {
		l.Path, l.Image = dir, "@"+dgst
	} else {
		var colon bool
		l.Path, l.Image, colon = strings.Cut(s, ":")
		if colon && l.Image == "" {
			return Location{}, fmt.Errorf("%w: %s: nothing follows the last colon", ErrReference, quote(transport+":"+s))
		}
	}
	if l.Path == "" {
		return Location{}, fmt.Errorf("%w: %s names no %s", ErrReference, quote(transport+":"+s), pathKind(transport))
	}
	if strings.ContainsRune(s, 0) {
		return Location{}, fmt.Errorf("%w: %s has a zero byte", ErrReference, quote(transport+":"+s))
	}
	return l, nil
}

// cutDigest splits DIR@sha256:… before the digest.
func cutDigest(s string) (dir, dgst string, found bool) {
	i := strings.IndexByte(s, ':')
	at := strings.LastIndexByte(s[:max(i, 0)], '@')
	if at < 0 || digest.Digest(s[at+1:]).Validate() != nil {
		return s, "", false
	}
	return s[:at], s[at+1:], true
}

func pathKind(transport string) string {
	if transport == TransportOCI {
		return "directory"
	}
	return "file"
}
