package main

import (
	"strings"

	"github.com/imgfs/imgfs/remote/printable"
)

// otherCommands are commands of docker, podman, skopeo, crane, umoci and shells, and
// what to type here.
var otherCommands = map[string]string{
	"list": "imgfs ls IMAGE", "dir": "imgfs ls IMAGE", "ll": "imgfs ls -l IMAGE", "lsd": "imgfs tree IMAGE", "exa": "imgfs ls -l IMAGE", "eza": "imgfs ls -l IMAGE", "locate": "imgfs find IMAGE -name NAME", "search": "imgfs find IMAGE -name NAME", "fd": "imgfs find IMAGE -name NAME",
	"more": "imgfs cat IMAGE PATH", "less": "imgfs cat IMAGE PATH", "head": "imgfs cat IMAGE PATH", "show": "imgfs cat IMAGE PATH", "get": "imgfs cp IMAGE PATH .",
	"copy": "imgfs cp IMAGE PATH... DEST", "rsync": "imgfs cp -a IMAGE PATH... DEST", "install": "imgfs cp IMAGE PATH... DEST",
	"pull": "imgfs index --fetch IMAGE", "fetch": "imgfs index --fetch IMAGE", "download": "imgfs index --fetch IMAGE", "prefetch": "imgfs index --fetch IMAGE",
	"exec": "imgfs run IMAGE COMMAND, which is a container of its own", "create": "imgfs bundle IMAGE DIR", "start": "imgfs run IMAGE",
	"attach": "imgfs mount IMAGE DIR", "open": "imgfs mount IMAGE DIR", "export": "imgfs tar IMAGE > FILE.tar", "unpack": "imgfs cp -a IMAGE:/ DIR",
	"extract": "imgfs cp -a IMAGE:/ DIR", "save": "imgfs tar IMAGE > FILE.tar, of its files; skopeo copy docker://IMAGE oci-archive:FILE, of its layers", "load": "imgfs mount FILE DIR, or imgfs mount - DIR < FILE", "import": "imgfs mount FILE DIR, or imgfs mount - DIR < FILE",
	"detach": "imgfs umount DIR", "eject": "imgfs umount DIR", "fusermount": "imgfs umount DIR", "fusermount3": "imgfs umount DIR", "stop": "imgfs umount DIR",
	"kill": "imgfs umount DIR", "close": "imgfs umount DIR",
	"images": "imgfs cache ls", "image": "imgfs cache ls", "mounts": "imgfs ps", "mounted": "imgfs ps", "findmnt": "imgfs ps",
	"df": "imgfs cache ls", "egrep": "imgfs grep PATTERN IMAGE PATH", "fgrep": "imgfs grep -F PATTERN IMAGE PATH", "rg": "imgfs grep -rn PATTERN IMAGE", "ack": "imgfs grep -rn PATTERN IMAGE",
	"sha256sum": "imgfs sum IMAGE PATH", "shasum": "imgfs sum IMAGE PATH", "checksum": "imgfs sum IMAGE PATH", "md5sum": "imgfs sum IMAGE PATH, which is SHA-256",
	"ncdu": "imgfs explore IMAGE", "tui": "imgfs explore IMAGE", "browse": "imgfs explore IMAGE", "ui": "imgfs explore IMAGE", "size": "imgfs du -s IMAGE", "dust": "imgfs du -h IMAGE", "rm": "imgfs cache prune, of all that was not used lately", "rmi": "imgfs cache prune, of all that was not used lately", "remove": "imgfs cache prune", "delete": "imgfs cache prune", "prune": "imgfs cache prune",
	"clean": "imgfs cache prune", "gc": "imgfs cache prune", "purge": "imgfs cache prune", "verify": "imgfs cache verify", "check": "imgfs cache verify", "fsck": "imgfs cache verify",
	"status": "imgfs stats DIR", "top": "imgfs ps, or imgfs stats DIR", "usage": "imgfs stats DIR", "info": "imgfs stats DIR, of a mount, or imgfs inspect IMAGE",
	"layers": "imgfs history IMAGE", "dive": "imgfs explore IMAGE", "manifest": "imgfs inspect --raw IMAGE", "digest": "imgfs inspect IMAGE",
	"tags": "imgfs inspect IMAGE, which lists them", "list-tags": "imgfs inspect IMAGE, which lists them", "describe": "imgfs inspect IMAGE",
	"compare": "imgfs diff IMAGE1 IMAGE2", "cmp": "imgfs diff IMAGE1 IMAGE2", "diffs": "imgfs diff IMAGE1 IMAGE2", "container-diff": "imgfs diff --packages IMAGE1 IMAGE2", "packages": "imgfs diff --packages IMAGE1 IMAGE2",
	"login": "podman login REGISTRY, or docker login: imgfs uses their credentials", "logout": "podman logout REGISTRY, or docker logout",
	"push": "skopeo copy: imgfs only reads", "build": "podman build, or docker build: imgfs only reads", "tag": "skopeo copy: imgfs only reads",
}

// The equivalents of flags that several programs have under several names.
const (
	hintLogin    = "podman login REGISTRY (or docker login), or --authfile FILE"
	hintAuthfile = "--authfile {FILE}"
	hintInsecure = "--tls-verify=false"
	hintCerts    = "put certificates into /etc/containers/certs.d/REGISTRY or ~/.config/containers/certs.d/REGISTRY"
)

// otherFlags are flags that docker, podman, skopeo, crane and others have, and what
// to type here. {WORD} stands for the value.
var otherFlags = map[string]string{
	"--creds": hintLogin, "--src-creds": hintLogin, "--username": hintLogin, "--password": hintLogin, "-p": hintLogin, "--token": hintLogin,
	"--registry-token": hintLogin, "--src-registry-token": hintLogin, "--src-username": hintLogin, "--src-password": hintLogin, "--password-stdin": hintLogin,
	"--src-authfile": hintAuthfile, "--auth-file": hintAuthfile,
	"--src-tls-verify": "--tls-verify={BOOL}", "--insecure": hintInsecure, "--insecure-registry": hintInsecure, "--insecure-skip-tls-verify": hintInsecure, "--skip-tls-verify": hintInsecure,
	"--plain-http": hintInsecure, "--http": hintInsecure, "--no-tls": hintInsecure, "--no-check-certificate": hintInsecure, "--allow-insecure": hintInsecure, "-k": hintInsecure,
	"--cert-dir": hintCerts, "--src-cert-dir": hintCerts, "--cert": hintCerts, "--cacert": hintCerts, "--ca-cert": hintCerts, "--ca-file": hintCerts, "--tlscacert": hintCerts,
	"--arch": "--platform linux/{ARCH}", "--override-arch": "--platform linux/{ARCH}", "--os": "--platform {OS}/ARCH", "--override-os": "--platform {OS}/ARCH",
	"--variant": "--platform linux/ARCH/{VARIANT}", "--override-variant": "--platform linux/ARCH/{VARIANT}", "--all-platforms": "--platform P, one at a time",
	"--data-root": "--cache-dir {DIR}", "--storage": "--cache-dir {DIR}", "--store": "--cache-dir {DIR}", "--cache": "--cache-dir {DIR}",
	"--cachedir": "--cache-dir {DIR}", "--tmpdir": "--cache-dir {DIR}", "--no-cache": "--cache-size 0 is without a limit; imgfs always keeps what it needs",
	"--long": "-l, of ls", "--debug": "--verbose", "-D": "--verbose", "--log-level": "--verbose", "-s": "--quiet", "--no-progress": "--quiet",
	"--no-network": "--offline", "--local": "--offline", "--pull": "--offline, never to ask a registry", "--cache-only": "--offline",
	"--timeout": "--read-timeout {T}, of mount", "--command-timeout": "--read-timeout {T}, of mount",
	"--retry": "--retries {N}, of mount", "--retry-times": "--retries {N}, of mount", "--max-concurrent-downloads": "--max-requests {N}, of mount",
	"--policy": "imgfs checks no signatures; name the image by its digest, as in NAME@sha256:...", "--insecure-policy": "leave it out: imgfs checks no signatures",
	"--disable-content-trust": "leave it out: imgfs checks no signatures",
}

// guessCommand returns what to type for words that begin with no command.
func guessCommand(words []string) string {
	word := words[0]
	if parts := strings.Fields(word); len(parts) > 1 { // in quotes
		for i := range parts {
			parts[i] = printable.Word(parts[i])
		}
		return "several words, without the quotes: imgfs " + strings.Join(parts, " ")
	}
	if !strings.ContainsAny(word, ":/@") {
		return ""
	}
	if len(words) > 1 {
		return "imgfs mount " + printable.Word(word) + " " + printable.Word(words[1])
	}
	return "imgfs ls " + printable.Word(word)
}
