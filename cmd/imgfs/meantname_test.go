package main

import "testing"

func TestMeantName(t *testing.T) {
	for typed, want := range map[string]string{
		"fedora\n": "fedora", " fedora:41 ": "fedora:41", "'fedora'": "fedora", "fedora,": "fedora", "fedora:": "fedora", "fedora/": "fedora", "quay.io/a/b/": "quay.io/a/b",
		"docker pull fedora:41": "fedora:41", "podman run --rm quay.io/a/b": "quay.io/a/b", "FROM golang:1.26": "golang:1.26", "image: nginx": "nginx",
		"Fedora": "fedora", "Fedora:41-X": "fedora:41-X", "Quay.io/A/b:V1": "quay.io/a/b:V1",
		"https://quay.io/a/b": "quay.io/a/b", "http://localhost:5000/a": "localhost:5000/a", "docker-image://fedora": "fedora",
		"https://hub.docker.com/_/fedora": "fedora", "https://hub.docker.com/_/fedora/tags?page=2": "fedora", "https://hub.docker.com/r/grafana/grafana/tags": "grafana/grafana",
		"hub.docker.com/r/grafana/grafana": "grafana/grafana", "https://hub.docker.com/repository/docker/a/b/general": "a/b",
		"https://quay.io/repository/prometheus/busybox?tab=tags": "quay.io/prometheus/busybox", "quay.io/repository/prometheus/busybox": "quay.io/prometheus/busybox",
		"https://quay.io/repository/a/b?tab=tags&tag=v1": "quay.io/a/b:v1",
		"https://github.com/Home/x/pkgs/container/x":     "ghcr.io/home/x", "https://github.com/orgs/home/packages/container/package/x": "ghcr.io/home/x",
		"https://gallery.ecr.aws/docker/library":                      "public.ecr.aws/docker/library",
		"https://registry-1.docker.io/v2/library/fedora/manifests/41": "registry-1.docker.io/library/fedora:41",
		"fedora@sha256:12": "a digest is whole, with 64 digits: imgfs inspect fedora prints it", "fedora@41": "fedora:41",
		// Nothing is made of these.
		"fedora": "", "quay.io/a/b:v1": "", "a b": "", "": "", " ": "", "fedora:-": "", "fedora:x:y": "", "https://": "", "fedora\x1b[2J": "", "://": "", "docker": "", "github.com/a/b": "",
		"https://hub.docker.com/": "a registry alone is no image: hub.docker.com/NAME", "quay.io/": "a registry alone is no image: quay.io/NAME",
		"localhost:5000/": "a registry alone is no image: localhost:5000/NAME", "docker://10.0.0.1:5000/": "a registry alone is no image: 10.0.0.1:5000/NAME",
		"https://hub.docker.com/r/": "hub.docker.com/r",
	} {
		if got := meantName(typed); got != want {
			t.Errorf("%q: got %q, want %q", typed, got, want)
		}
	}
}

func TestIsRegistry(t *testing.T) {
	for name, want := range map[string]bool{
		"quay.io": true, "localhost:5000": true, "127.0.0.1:5000": true, "10.0.0.1": true, "registry.example.com:443": true, "registry.local:5000": true,
		"fedora": false, "fedora:41": false, "localhost": false, "node:1443": false, "quay.io/a": false, "image.tar": false, "image.tar:v1": false, "a.b:v1": false, "": false, ".": false, ":": false, "python:3.12": false,
	} {
		if got := isRegistry(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}
