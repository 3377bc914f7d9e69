package main

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/bundle"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/dockerdaemon"
	"github.com/imgfs/imgfs/remote/localname"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// hintFor returns the hint for an error of the packages below, or "".
func hintFor(err error) string {
	var mount *fusefs.Error
	var opening *image.Error
	var named *imageError
	var ambiguous *remote.AmbiguousError
	var platform *remote.PlatformError
	var path *localname.Error
	var contained *bundle.Error
	if errors.As(err, &opening) {
		if hint := imageHint(opening); hint != "" {
			return hint
		}
	}
	var kind *remote.KindError
	var store *remote.StoreError
	var socket *dockerdaemon.SocketError
	switch {
	case errors.As(err, &socket):
		return socketHint(socket)
	case errors.As(err, &mount) && mount.Hint == "" && strings.Contains(err.Error(), "/etc/mtab"):
		return "fusermount3 wants the file /etc/mtab; as root: ln -s /proc/self/mounts /etc/mtab"
	case errors.As(err, &mount):
		return mount.Hint
	case errors.As(err, &contained):
		return containerHint(contained)
	case errors.As(err, &kind):
		return kindHint(kind)
	case errors.As(err, &store) && store.Command != "":
		return store.Command
	case errors.As(err, &path) && path.Hint != "":
		return path.Hint
	case errors.Is(err, cache.ErrFull):
		return "give the cache more room, on the disk or with --cache-size SIZE"
	case errors.Is(err, layerindex.ErrTooBig), errors.Is(err, remote.ErrTooBig):
		return "allow more with --max-layer-size SIZE, or anything with --max-layer-size " + cli.Unlimited
	case errors.Is(err, layerindex.ErrMetadata):
		return "allow this image more memory with --max-metadata SIZE, if you trust it"
	case errors.As(err, &ambiguous):
		return "say which one" + example("", ambiguous.Locations[0].String())
	case errors.As(err, &platform):
		return platformHint(platform.There)
	case errors.Is(err, remote.ErrPlatform):
		return "choose one with --platform OS/ARCH[/VARIANT]"
	case errors.Is(err, layerindex.ErrDigest), errors.Is(err, layerindex.ErrDiffID), errors.Is(err, remote.ErrDigest):
		return "nothing of it was kept; try again, or ask whoever runs the registry"
	case errors.As(err, &named):
		return named.hint
	}
	return ""
}

// kindHint returns the hint for a file or directory that its transport does not
// read, or "".
func kindHint(err *remote.KindError) string {
	if err.Instead != nil {
		return "write " + printable.Word(err.Instead.String())
	}
	return err.Command
}

// socketHint returns the hint for a daemon's socket that cannot be used, or "".
func socketHint(err *dockerdaemon.SocketError) string {
	switch {
	case len(err.Others) > 0:
		return "if the daemon at another socket is meant: export DOCKER_HOST=unix://" + printable.Word(err.Others[0])
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return "start docker's daemon, or say where it is: DOCKER_HOST=unix:///PATH"
	case errors.Is(err, fs.ErrPermission):
		return "the members of the group docker may ask it, and root; or docker save -o image.tar NAME and imgfs ls image.tar"
	}
	return "DOCKER_HOST=unix:///PATH says where docker's daemon is"
}

// platformHint says how one of some platforms is chosen, if there is any.
func platformHint(there []string) string {
	switch {
	case len(there) == 0:
		return ""
	case strings.Contains(strings.Join(there, ""), "("):
		return "choose one with --platform" + example("--platform ", there[0])
	}
	return "choose one with --platform OS/ARCH[/VARIANT]"
}

// example shows what to type before a word, unless a stranger made that too long to
// be one.
func example(before, word string) string {
	if len(word) > 500 {
		return ""
	}
	return ", as in " + before + printable.Word(word)
}

// imageHint returns the hint for an error of opening an image, or "".
func imageHint(err *image.Error) string {
	switch err.Hint {
	case image.HintDefaultCacheDir:
		return "name a cache directory with --cache-dir DIR"
	case image.HintCacheDir:
		hint := "name another cache directory with --cache-dir DIR or IMGFS_CACHE_DIR"
		if err.Advice != "" {
			hint = err.Advice + ", or " + hint
		}
		return hint
	case image.HintUnpack:
		return "unpack it yourself, which needs no copy, or give the cache more room with --cache-size SIZE or --cache-dir DIR"
	case image.HintFetch:
		return "imgfs index --fetch " + printable.Word(err.Name) + ", without --offline, brings all of it into the cache"
	case image.HintDamaged:
		return "nothing of it was kept; the file is damaged, or was written wrong: get it again, or make it again"
	case image.HintAllowPrivate:
		return "if you trust " + err.Host + " with what this machine can reach: --allow-private"
	case image.HintCertificate:
		return "put the certificate to trust into /etc/containers/certs.d/" + err.Host + "/ca.crt, or do without: --tls-verify=false"
	case image.HintTLSName:
		return "ask " + err.Host + " by a name that its certificate has, or have it get a certificate for this one, or do without: --tls-verify=false"
	case image.HintTLSDate:
		return "set this machine's clock if it is wrong, or have " + err.Host + " get a new certificate, or do without: --tls-verify=false"
	case image.HintTLSClient:
		return "put the client certificate and its key into /etc/containers/certs.d/" + err.Host + "/ as NAME.cert and NAME.key"
	case image.HintPlainHTTP:
		return "if plain http will do: --tls-verify=false, or insecure = true for " + err.Host + " in registries.conf"
	case image.HintMendCredential:
		return "mend that, or have another file: --authfile FILE, or log in: podman login " + err.Host + " (or docker login)"
	case image.HintLoginAgain:
		return "log in again: podman login " + err.Host + " (or docker login), or --authfile FILE"
	case image.HintTag:
		return tagHint(err.Name, err.Tags)
	case image.HintPush:
		return "podman login " + err.Host + " (or docker login) as somebody who may push to " + printable.Word(err.Name) + "; imgfs index push --to REPO puts indexes into another repository"
	case image.HintLogin:
		return "podman login " + err.Host + " (or docker login), or --authfile FILE; registries say so of images that do not exist, too"
	}
	return ""
}

// tagHint says which tags of an image there are in place of the one that there is not:
// those that are like it, or else the first ones.
func tagHint(name string, tags []string) string {
	const most, longest = 8, 128
	tags = slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return len(tag) > longest }) // as no tag is
	ref, err := remote.ParseReference(name)
	if err != nil || len(tags) == 0 {
		return ""
	}
	var names []string
	for _, tag := range cli.Nearest(ref.Tag, tags) {
		names = append(names, printable.Word(ref.Name()+":"+tag))
	}
	if len(names) > 0 {
		return strings.Join(names, " or ")
	}
	for _, tag := range tags[:min(most, len(tags))] {
		names = append(names, printable.Name(tag))
	}
	if len(tags) > most {
		names = append(names, "...")
	}
	return "there are the tags " + strings.Join(names, ", ")
}
