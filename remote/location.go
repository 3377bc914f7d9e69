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
	// TransportDockerDaemon is the daemon of docker on this machine, or one that
	// speaks like it: docker-daemon:REF, or docker-daemon:sha256:… with an ID.
	TransportDockerDaemon = "docker-daemon"
	// TransportStdin is an archive of either kind on standard input: - or -:IMAGE.
	// skopeo has none such. For it and for archives the path "-" is standard
	// input; a file of that name is ./-.
	TransportStdin = "-"
	// TransportContainersStorage is the store of podman, buildah and CRI-O:
	// containers-storage:[[DRIVER@]ROOT]REF, where what stands in the outer
	// brackets, with them, may be absent.
	TransportContainersStorage = "containers-storage"
	// TransportContainerd is the content store of containerd:
	// containerd:[NAMESPACE@ROOT]REF, containerd:[NAMESPACE]REF,
	// containerd:[ROOT]REF or containerd:REF.
	TransportContainerd = "containerd"
)

// Transports lists those that imgfs reads, as messages have it.
const Transports = "docker://, docker-daemon:, containers-storage:, containerd:, oci:, oci-archive: and docker-archive:"

// A Location says where an image is, as the user names it.
type Location struct {
	// Transport is one of the Transport constants.
	Transport string
	// Path is the directory or file. For TransportDocker it is the
	// reference, for ParseReference, and for TransportDockerDaemon the
	// reference or ID. For the stores that are read in place it is what stands
	// in brackets, without these; empty means the usual store.
	Path string
	// Image selects one image of a directory or file: a tag, "@" and a
	// digest, or for docker-archive also a reference; "@" and a number is
	// the image at that place, from 0. Empty means the only one. In a store that
	// is read in place it is the image's name there, its ID, or "@" and one of
	// these, never empty.
	Image string
}

// InFile reports whether Path is the path of a directory or file.
func (l Location) InFile() bool { return ofFiles(l.Transport) && !l.Stdin() }

// String returns l as ParseLocation takes it back.
func (l Location) String() string {
	switch {
	case l.Transport == TransportDocker:
		return "docker://" + l.Path
	case l.Transport == TransportStdin && l.Image == "":
		return l.Path
	case l.Transport == TransportStdin:
		return l.Path + ":" + l.Image
	case inPlace(l.Transport) && l.Path == "":
		return l.Transport + ":" + l.Image
	case inPlace(l.Transport):
		return l.Transport + ":[" + l.Path + "]" + l.Image
	case l.Image == "":
		return l.Transport + ":" + l.Path
	}
	return l.Transport + ":" + l.Path + ":" + l.Image
}

// Stdin reports whether the image is read from standard input.
func (l Location) Stdin() bool {
	switch l.Transport {
	case TransportOCIArchive, TransportDockerArchive, TransportStdin:
		return l.Path == "-"
	}
	return false
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
// none in its own name. DIR@sha256:… is DIR:@sha256:…. A lone "-", or one before a
// colon or a digest, is an archive on standard input. Which store is meant that is read
// in place stands in brackets before the image, so its path has no "]".
func ParseLocation(s string) (Location, error) {
	if ref, ok := strings.CutPrefix(s, "docker://"); ok {
		return registryLocation(s, ref)
	}
	if before, _, _ := cutDigest(s); before == "-" || s == "-" || strings.HasPrefix(s, "-:") {
		return fileLocation(s, TransportStdin, s)
	}
	transport, rest, ok := strings.Cut(s, ":")
	if !ok {
		return registryLocation(s, s)
	}
	switch {
	case ofFiles(transport):
		return fileLocation(s, transport, rest)
	case transport == TransportDockerDaemon:
		return storeLocation(s, transport, rest)
	case inPlace(transport):
		return placeLocation(s, transport, rest)
	case unsupported(transport):
		instead := ""
		if _, err := ParseReference(s); err == nil {
			instead = "; for an image of that name in a registry write " + quote("docker://"+s)
		}
		return Location{}, fmt.Errorf("%w: %s: imgfs does not read %s:, only %s%s", ErrUnsupported, quote(s), transport, Transports, instead)
	}
	return registryLocation(s, s)
}

// ofFiles reports whether a word is a transport whose images are a directory or a file.
func ofFiles(transport string) bool {
	return transport == TransportOCI || transport == TransportOCIArchive || transport == TransportDockerArchive
}

// inPlace reports whether a word is a transport whose images are read where the store of
// another program has them.
func inPlace(transport string) bool {
	return transport == TransportContainersStorage || transport == TransportContainerd
}

// unsupported reports whether a word is a transport of skopeo's that imgfs does
// not read.
func unsupported(transport string) bool {
	switch transport {
	case "dir", "ostree", "sif", "tarball":
		return true
	}
	return false
}

// CutPath splits IMAGE:/PATH, the name of an image and a path in it that begins
// with a slash, at the first ":/" behind the transport, and the brackets of a store. No name of an image has one
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
	case ofFiles(transport), transport == TransportDockerDaemon:
	case inPlace(transport):
		_, rest, _ = cutStore(rest)
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

// storeLocation returns the location of an image in a store that a program of this
// machine keeps. full is all that was written, and ref what is behind the transport.
func storeLocation(full, transport, ref string) (Location, error) {
	switch {
	case ref == "":
		return Location{}, fmt.Errorf("%w: %s names no image", ErrReference, quote(full))
	case strings.ContainsRune(ref, 0):
		return Location{}, fmt.Errorf("%w: %s has a zero byte", ErrReference, quote(full))
	}
	return Location{Transport: transport, Path: ref}, nil
}

// placeLocation returns the location of an image in a store that is read in place. full
// is all that was written, and s what is behind the transport.
func placeLocation(full, transport, s string) (Location, error) {
	store, ref, bracketed := cutStore(s)
	switch {
	case !bracketed && strings.HasPrefix(s, "["):
		return Location{}, fmt.Errorf("%w: %s: nothing closes the bracket", ErrReference, quote(full))
	case bracketed && store == "":
		return Location{}, fmt.Errorf("%w: %s: there is nothing in the brackets", ErrReference, quote(full))
	case strings.HasPrefix(ref, "["):
		return Location{}, fmt.Errorf("%w: %s: the name of the image begins with a bracket", ErrReference, quote(full))
	}
	l, err := storeLocation(full, transport, ref)
	if err == nil && strings.ContainsRune(store, 0) {
		err = fmt.Errorf("%w: %s has a zero byte", ErrReference, quote(full))
	}
	if err != nil {
		return Location{}, err
	}
	return Location{Transport: transport, Path: store, Image: l.Path}, nil
}

// cutStore splits [STORE]REF. Without brackets all of s is the reference.
func cutStore(s string) (store, ref string, bracketed bool) {
	if inside, ok := strings.CutPrefix(s, "["); ok {
		if store, ref, ok = strings.Cut(inside, "]"); ok {
			return store, ref, true
		}
	}
	return "", s, false
}

// fileLocation returns the location of an image in a directory or file. full is all
// that was written, and s what is behind the transport.
func fileLocation(full, transport, s string) (Location, error) {
	l := Location{Transport: transport}
	if dir, dgst, ok := cutDigest(s); ok {
		l.Path, l.Image = dir, "@"+dgst
	} else {
		var colon bool
		l.Path, l.Image, colon = strings.Cut(s, ":")
		if colon && l.Image == "" {
			return Location{}, fmt.Errorf("%w: %s: nothing follows the last colon", ErrReference, quote(full))
		}
	}
	if l.Path == "" {
		return Location{}, fmt.Errorf("%w: %s names no %s", ErrReference, quote(full), pathKind(transport))
	}
	if strings.ContainsRune(s, 0) {
		return Location{}, fmt.Errorf("%w: %s has a zero byte", ErrReference, quote(full))
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
