//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestBadReferences(t *testing.T) {
	home := alone(t)
	file := writeFile(t, filepath.Join(home, "file"), "no archive\n")
	cache := filepath.Join(home, "cache")
	for _, c := range []struct {
		image string
		says  string
	}{
		{"", `"" names no image`},
		{" ", "the image's name is empty"},
		{"a b", `"a b" has a space or control character`},
		{"Fedora", `"Fedora" has capitals in the repository's name; try "fedora"`},
		{"https://example.com/app", `"https://example.com/app" is a URL`},
		{"fedora@sha256:12", `"sha256:12" is not a digest`},
		{"fedora:-", `"-" is not a tag`},
		{"fedora:x:y", `"fedora:x:y"`},
		{"/abs", "/abs: no such file or directory"},
		{"fedora\x1b[2J", `"fedora\x1b[2J"`},
		{"dir:/x", "imgfs does not read dir:"},
		{"ostree:app", "imgfs does not read ostree:"},
		{"oci:", `"oci:" names no directory`},
		{"oci:" + home, "oci:" + home + ": not an OCI image layout"},
		{"oci:" + home + "/nothing:tag", "oci:" + home + "/nothing:tag: not an OCI image layout"},
		{"oci-archive:" + file, "oci-archive:" + file + ": unsupported image"},
		{"oci-archive:" + home + "/nothing", "oci-archive:" + home + "/nothing: not found"},
		{"docker-archive:" + file, "docker-archive:" + file + ": unsupported image"},
		{"docker-archive:" + home + "/nothing:app:latest", "docker-archive:" + home + "/nothing:app:latest: not found"},
	} {
		t.Run(c.image, func(t *testing.T) {
			for _, command := range []string{"ls", "index", "inspect"} {
				checkRefusal(t, invoke(t, command, "--cache-dir", cache, c.image), cli.ExitFailure, []string{c.says}, "")
			}
			checkCache(t, cache)
		})
	}
}

func TestRefusedLogin(t *testing.T) {
	alone(t)
	const user, password = "someone", "hush-hush-4711"
	for name, login := range map[string]registrytest.Login{"basic": registrytest.Basic, "bearer": registrytest.Bearer} {
		t.Run(name, func(t *testing.T) {
			reg := registrytest.New(t, &registrytest.Options{Login: login, User: user, Password: password})
			image, _ := publish(t, reg, small)
			cache := t.TempDir()
			hint := "podman login " + reg.Host() + " "
			for _, flags := range [][]string{
				nil,
				{credentials(t, reg.Host(), user, "wrong-secret")},
				{credentials(t, reg.Host(), "nobody", password)},
				{credentials(t, "elsewhere.example", user, password)},
			} {
				args := append(flags, "--cache-dir", cache, "ls", image)
				checkRefusal(t, invoke(t, args...), cli.ExitFailure, []string{image + ": unauthorized"}, hint)
			}
			garbage := writeFile(t, filepath.Join(t.TempDir(), "auth.json"), `{"auths": `+password)
			checkRefusal(t, invoke(t, "ls", "--cache-dir", cache, "--authfile", garbage, image), cli.ExitFailure, []string{"--authfile: " + garbage + ": not a JSON file"}, "")
			checkRefusal(t, invoke(t, "ls", "--cache-dir", cache, "--authfile", garbage+"x", image), cli.ExitFailure, []string{"--authfile", garbage + "x: no such file"}, "")
			checkCache(t, cache)
			succeed(t, "ls", "--cache-dir", cache, credentials(t, reg.Host(), user, password), image)
		})
	}
}

// A registry that leads where it may not is named, and the flag that allows it.
// Even a registry on this machine may not lead to an address that no server has.
func TestRefusedAddress(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	for kind, command := range map[registrytest.Kind]string{registrytest.Manifest: "ls", registrytest.Blob: "index"} {
		t.Run(string(kind), func(t *testing.T) {
			reg := registrytest.New(t, nil)
			image, _ := publish(t, reg, small)
			reg.Inject(kind, registrytest.Always(registrytest.Redirect("https://255.255.255.255/x")))
			says := []string{reg.Host() + "/app", "unavailable: refused address: " + reg.Host() + " leads to 255.255.255.255, a reserved address"}
			checkRefusal(t, invoke(t, "--cache-dir", t.TempDir(), command, image), cli.ExitFailure, says, "--allow-private")
		})
	}
}

func TestUnreachable(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	for _, k := range []registrytest.Kind{registrytest.Ping, registrytest.Manifest, registrytest.Blob, registrytest.Tags} {
		reg.Inject(k, registrytest.Always(registrytest.Page()))
	}
	cache := t.TempDir()
	for _, c := range []struct{ image, says string }{
		{"127.0.0.1:1/app", "127.0.0.1:1/app:latest: unavailable: dial tcp 127.0.0.1:1: connection refused"},
		{image, image + ": unavailable: the answer is a web page"},
	} {
		t.Run(c.image, func(t *testing.T) {
			t.Parallel()
			for _, command := range []string{"ls", "inspect"} {
				checkRefusal(t, invoke(t, "--cache-dir", cache, command, c.image), cli.ExitFailure, []string{c.says}, "")
			}
		})
	}
	t.Cleanup(func() { checkCache(t, cache) })
}

// TestTLSVerify has registries with plain http and with a certificate that
// nobody trusts, both on loopback.
func TestTLSVerify(t *testing.T) {
	home := alone(t)
	plain, self := registrytest.New(t, nil), registrytest.New(t, &registrytest.Options{TLS: true})
	plainImage, _ := publish(t, plain, small)
	selfImage, _ := publish(t, self, small)
	for _, c := range []struct {
		flag, image string
		hint        string // of the refusal, "" if there is none
	}{
		{"", plainImage, ""},
		{"--tls-verify", plainImage, "--tls-verify=false"},
		{"--tls-verify=true", plainImage, "--tls-verify=false"},
		{"--tls-verify=false", plainImage, ""},
		{"", selfImage, "/etc/containers/certs.d/" + self.Host()},
		{"--tls-verify=true", selfImage, "--tls-verify=false"},
		{"--tls-verify=false", selfImage, ""},
	} {
		args := []string{"--cache-dir", t.TempDir(), "ls", c.image, "/etc"}
		if c.flag != "" {
			args = append([]string{c.flag}, args...)
		}
		r := invoke(t, args...)
		if c.hint != "" {
			checkRefusal(t, r, cli.ExitFailure, []string{c.image + ": unavailable: no secure connection"}, c.hint)
		} else if want := "os-release\n"; r.stdout != want || r.code != 0 {
			t.Errorf("%s on %s: got %q and exit code %d, want %q\n%s", c.flag, c.image, r.stdout, r.code, want, r.stderr)
		}
	}
	// A certificate that is put where the hint says, but in the user's own
	// directory.
	writeFile(t, filepath.Join(home, ".config/containers/certs.d", self.Host(), "ca.crt"), pemOf(self.Certificate()))
	succeed(t, "--tls-verify=true", "--cache-dir", t.TempDir(), "ls", selfImage)
}

func TestBadCache(t *testing.T) {
	home := alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	file := writeFile(t, filepath.Join(home, "file"), "a file\n")
	newer := filepath.Join(home, "newer")
	writeFile(t, filepath.Join(newer, "version"), "imgfs cache 99\n")
	for _, command := range []string{"ls", "index", "inspect"} {
		for _, c := range []struct{ dir, says string }{
			{file, "cache directory " + file + ": not a directory"},
			{file + "/below", "cache directory " + file + "/below: not a directory"},
			{newer, "cache directory " + newer + " has format 99"},
			{"/proc/imgfs", "cache directory /proc/imgfs: no such file or directory"},
		} {
			checkRefusal(t, invoke(t, command, "--cache-dir", c.dir, image), cli.ExitFailure, []string{c.says}, "--cache-dir DIR")
		}
	}
	if n := reg.Count(); n > 0 {
		t.Errorf("the registry got %d requests before the cache was looked at", n)
	}
}

// TestCacheNotWritable needs a user to whom permissions apply.
func TestCacheNotWritable(t *testing.T) {
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	if os.Geteuid() == 0 {
		s = sandboxOf(t, otherUser(t))
	}
	dir := s.mountpoint()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	mnt := s.mountpoint()
	for _, args := range [][]string{{"ls", image}, {"mount", image, mnt}} {
		r := s.run(append([]string{"--cache-dir", dir}, args...)...)
		checkRefusal(t, r, cli.ExitFailure, []string{"cache directory " + dir, "not writable"}, "--cache-dir DIR or IMGFS_CACHE_DIR")
	}
	if mounted(mnt) {
		t.Errorf("%s is mounted", mnt)
	}
}

func TestUsageErrors(t *testing.T) {
	alone(t)
	for _, c := range []struct {
		args       []string
		says, help string
	}{
		{nil, "no command", ""},
		{[]string{""}, "no command", ""},
		{[]string{"frobnicate"}, `unknown command "frobnicate"`, ""},
		{[]string{"--frob"}, "unknown flag: --frob", ""},
		{[]string{"--frob", "ls"}, "unknown flag: --frob", ""},
		{[]string{"help", "frob"}, `unknown command "frob"`, ""},
		{[]string{"help", "ls", "cat"}, "one command", ""},
		{[]string{"--cache-dir"}, "flag needs an argument: --cache-dir", ""},
		{[]string{"--tls-verify=perhaps", "version"}, `"perhaps" is neither true nor false`, ""},
		{[]string{"--quiet=perhaps", "version"}, `"perhaps"`, ""},
		{[]string{"ls"}, "ls: no image named", "ls"},
		{[]string{"ls", "--frob", "x"}, "unknown flag: --frob", "ls"},
		{[]string{"ls", "-Z", "x"}, "'Z' in -Z", "ls"},
		{[]string{"ls", "x", "--platform"}, "flag needs an argument: --platform", "ls"},
		{[]string{"cat", "x"}, "cat: an image and at least one path", "cat"},
		{[]string{"index"}, "index: one image", "index"},
		{[]string{"index", "x", "y"}, "index: one image", "index"},
		{[]string{"inspect"}, "inspect: one image", "inspect"},
		{[]string{"inspect", "--raw", "--config", "x"}, "--raw and --config", "inspect"},
		{[]string{"mount"}, "mount: an image is needed", "mount"},
		{[]string{"mount", "x", "y", "z"}, "mount: an image is needed", "mount"},
		{[]string{"stats"}, "stats: one directory is needed", "stats"},
		{[]string{"stats", "x", "y"}, "stats: one directory is needed", "stats"},
		{[]string{"cache"}, "cache needs another word", "cache"},
		{[]string{"cache", "frob"}, `unknown command "cache frob"`, "cache"},
		{[]string{"help", "cache", "frob"}, `unknown command "cache frob"`, "cache"},
		{[]string{"cache", "--frob", "ls"}, "unknown flag: --frob", "cache"},
		{[]string{"cache", "ls", "--frob"}, "unknown flag: --frob", "cache ls"},
		{[]string{"cache", "ls", "x"}, `cache ls: "x" is not a flag`, "cache ls"},
		{[]string{"cache", "verify", "x"}, `cache verify: "x" is not a flag`, "cache verify"},
		{[]string{"cache", "prune"}, "cache prune: say what to remove: --all, --older-than D or --to SIZE", "cache prune"},
		{[]string{"cache", "prune", "all"}, `cache prune: "all" is not a flag`, "cache prune"},
		{[]string{"cache", "prune", "--all", "--to=1G"}, "--all leaves nothing", "cache prune"},
		{[]string{"cache", "prune", "--all", "--older-than", "1d"}, "--all leaves nothing", "cache prune"},
		{[]string{"cache", "prune", "--older-than", "0"}, `"0": not a time span such as`, "cache prune"},
		{[]string{"cache", "prune", "--older-than", "soon"}, `"soon": not a time span such as`, "cache prune"},
		{[]string{"cache", "prune", "--to", "none"}, `"none" is not a size such as`, "cache prune"},
		{[]string{"--cache-size", "much", "cache", "ls"}, `"much" is not a size such as`, ""},
		{[]string{"cache", "ls", "--cache-size", "5X"}, `there is no unit "x"`, "cache ls"},
		{[]string{"mount", "--offline", "--prefetch", "x", "y"}, "mount: --prefetch and --offline exclude each other", "mount"},
		{[]string{"mount", "--export", "--engine", "x", "y"}, "mount: --export is not for a mount that an overlay is put on", "mount"},
		{[]string{"mount", "-o", "export", "--overlay=z", "x", "y"}, "mount: --export is not for a mount that an overlay is put on", "mount"},
		{[]string{"index", "--offline", "--fetch", "x"}, "index: --fetch and --offline exclude each other", "index"},
		{[]string{"version", "x"}, "version takes no arguments", "version"},
	} {
		t.Run(fmt.Sprint(c.args), func(t *testing.T) {
			hint := "imgfs help"
			if c.help != "" {
				hint += " " + c.help
			}
			checkRefusal(t, invoke(t, c.args...), cli.ExitUsage, []string{c.says}, hint+"\n")
		})
	}
	for command, code := range map[string]int{"umount": cli.ExitFailure, "stats": cli.ExitUsage} {
		checkRefusal(t, invoke(t, command, ""), code, []string{command + ": the name of the directory is empty"}, "imgfs ps lists what is mounted\n")
	}
	checkRefusal(t, invoke(t, "umount"), cli.ExitUsage, []string{"umount: no directory and no image named"}, "imgfs ps lists what is mounted, --all unmounts all of it\n")
}
