package main

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/printable"
)

// meantName returns a hint to the reference that somebody may have meant who typed
// something else in its place: a line of another program, the address of a web page, a
// name with what hangs on it when it is copied. Or "".
func meantName(typed string) string {
	name := strings.Trim(strings.TrimSpace(typed), "\"'`,;\\")
	if words := strings.Fields(name); len(words) > 1 {
		if !slices.Contains([]string{"docker", "podman", "nerdctl", "skopeo", "crane", "buildah", "imgfs", "FROM", "image:", "$", "#"}, words[0]) {
			return ""
		}
		name = words[len(words)-1]
	}
	if page, ok := pageImage(name); ok {
		name = page
	} else if _, rest, ok := strings.Cut(name, "://"); ok {
		name = rest
	}
	name = strings.TrimRight(name, "/:@")
	if short, digest, ok := strings.Cut(name, "@"); ok {
		if _, err := remote.ParseReference(name); err != nil {
			if _, err := remote.ParseReference(short + ":" + digest); err == nil && !strings.Contains(digest, ":") {
				return printable.Word(short + ":" + digest)
			}
			if _, err := remote.ParseReference(short); err == nil {
				return "a digest is whole, with 64 digits: imgfs inspect " + printable.Word(short) + " prints it"
			}
		}
	}
	if isRegistry(name) && name != typed {
		return "a registry alone is no image: " + printable.Word(name+"/NAME")
	}
	for _, n := range []string{name, lowerPath(name), strings.ToLower(name)} {
		if _, err := remote.ParseReference(n); err == nil && n != typed {
			return printable.Word(n)
		}
	}
	return ""
}

// isRegistry reports whether a name is rather that of a registry than of an image: a host
// with a port, an address, or what ends as the names of hosts do.
func isRegistry(name string) bool {
	if strings.Contains(name, "/") {
		return false
	}
	host, port, hasPort := strings.Cut(name, ":")
	if hasPort && !isPort(port) {
		return false
	}
	return host == "localhost" && hasPort || net.ParseIP(host) != nil || strings.Contains(host, ".") && (hasPort || slices.Contains(hostEnds, host[strings.LastIndexByte(host, '.')+1:]))
}

// hostEnds are how the names of registries end.
var hostEnds = []string{"io", "com", "org", "net", "dev", "cloud", "gov", "edu", "eu", "de", "cn", "local", "internal", "lan", "localdomain"}

// lowerPath puts a name in lower case, but what follows the last colon.
func lowerPath(name string) string {
	i := strings.LastIndexByte(name, ':')
	if i < 0 || strings.Contains(name[i:], "/") {
		return strings.ToLower(name)
	}
	return strings.ToLower(name[:i]) + name[i:]
}

// pageImage returns the reference of the image that a web page is about, or that the
// address of a manifest names.
func pageImage(address string) (ref string, ok bool) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", false
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	at := func(i int) string { return append(parts[:len(parts):len(parts)], make([]string, 8)...)[i] }
	switch {
	case at(0) == "v2" && len(parts) > 3 && at(len(parts)-2) == "manifests":
		tag := at(len(parts) - 1)
		mark := ":"
		if strings.Contains(tag, ":") {
			mark = "@"
		}
		return u.Host + "/" + strings.Join(parts[1:len(parts)-2], "/") + mark + tag, true
	case u.Host == "hub.docker.com" && at(0) == "_" && at(1) != "":
		return at(1), true
	case u.Host == "hub.docker.com" && (at(0) == "r" || at(0) == "repository" && at(1) == "docker") && len(parts) > 2:
		if at(0) == "repository" {
			return at(2) + "/" + at(3), true
		}
		return at(1) + "/" + at(2), true
	case u.Host == "quay.io" && at(0) == "repository" && len(parts) > 2:
		ref = "quay.io/" + at(1) + "/" + at(2)
		if tag := u.Query().Get("tag"); tag != "" && tag != "latest" {
			ref += ":" + tag
		}
		return ref, true
	case u.Host == "github.com" && at(2) == "pkgs" && at(3) == "container":
		return "ghcr.io/" + strings.ToLower(at(0)) + "/" + at(4), true
	case u.Host == "github.com" && at(0) == "orgs" && at(2) == "packages" && at(3) == "container":
		return "ghcr.io/" + strings.ToLower(at(1)) + "/" + at(len(parts)-1), true
	case u.Host == "gallery.ecr.aws" && len(parts) > 1:
		return "public.ecr.aws/" + at(0) + "/" + at(1), true
	}
	return "", false
}
