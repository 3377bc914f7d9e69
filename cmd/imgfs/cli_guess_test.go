//go:build linux

package main

import (
	"fmt"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
)

// TestWhatWasMeant types what people type who know other programs.
func TestWhatWasMeant(t *testing.T) {
	alone(t)
	for _, c := range []struct {
		args       []string
		says, hint string
	}{
		{[]string{"mont", "fedora", "/mnt"}, `unknown command "mont"`, "imgfs mount; "},
		{[]string{"unmout", "/mnt"}, `unknown command "unmout"`, "imgfs umount; "},
		{[]string{"pull", "fedora"}, `unknown command "pull"`, "imgfs index --fetch IMAGE; "},
		{[]string{"images"}, `unknown command "images"`, "imgfs cache ls; "},
		{[]string{"cache", "list"}, `unknown command "cache list"`, "imgfs cache ls; imgfs help cache"},
		{[]string{"cache", "--all"}, "unknown flag: --all", "imgfs cache prune --all; "},
		{[]string{"--fetch", "index", "x"}, "unknown flag: --fetch", "imgfs index --fetch; "},
		{[]string{"cache", "prune", "-a"}, "'a' in -a", "--all; "},
		{[]string{"umount", "-f", "x"}, "'f' in -f", "-l, also if it is in use; "},
		{[]string{"ls fedora", "x"}, `unknown command "ls fedora"`, "imgfs ls fedora; "},
		{[]string{"cache", "purne"}, `unknown command "cache purne"`, "imgfs cache prune; "},
		{[]string{"fedora:41"}, `unknown command "fedora:41"`, "imgfs ls fedora:41; "},
		{[]string{"oci:/x", "/mnt"}, `unknown command "oci:/x"`, "imgfs mount oci:/x /mnt; "},
		{[]string{"ls", "--index-rep", "x", "y"}, "unknown flag: --index-rep", "--index-repo; "},
		{[]string{"mount", "--index-turst=local", "y"}, "unknown flag: --index-turst", "--index-trust"},
		{[]string{"ls", "--platfrom", "x", "y"}, "unknown flag: --platfrom", "--platform; "},
		{[]string{"ls", "--tls_verify=false", "y"}, "unknown flag: --tls_verify", "--tls-verify=false; "},
		{[]string{"ls", "-tls-verify=false", "y"}, "-tls-verify=false: a flag of several letters", "--tls-verify=false"},
		{[]string{"inspect", "-platform", "x", "y"}, "-platform: a flag of several letters", "--platform"},
		{[]string{"mount", "--tls-verify", "false", "x", "y"}, "--tls-verify false: ", "--tls-verify=false"},
		{[]string{"--tls-verify", "false", "ls", "x"}, "--tls-verify false: ", "--tls-verify=false"},
		{[]string{"mount", "x", "y", "--allow-other", "true"}, "--allow-other true: ", "--allow-other=true"},
		{[]string{"ls", "--tls-verify", "no", "x"}, "--tls-verify no: ", "--tls-verify=false"},
		{[]string{"--offline", "On", "ls", "x"}, "--offline On: ", "--offline=true"},
		{[]string{"ls", "--color", "never", "x"}, "--color never: ", "--color=never"},
		{[]string{"ls", "x", "--classify", "auto"}, "--classify auto: ", "--classify=auto"},
		{[]string{"--hlep"}, "unknown flag: --hlep", "--help; imgfs help"},
		{[]string{"ls", "--versoin"}, "unknown flag: --versoin", "--version; imgfs help ls"},
		{[]string{"ls", "--cache-dir=", "x"}, `invalid argument "" for "--cache-dir" flag: it is empty`, "imgfs help ls"},
		{[]string{"mount", "x", ""}, "mount: the name of the directory is empty", "imgfs mount x DIR, or without a word"},
		{[]string{"ls", "--cache-size", "10", "G", "x"}, "--cache-size 10 G: ", "--cache-size 10G"},
		{[]string{"cache", "prune", "--to", "1", "GiB"}, "--to 1 GiB: ", "--to 1GiB"},
		{[]string{"mount", "--grace", "30", "x", "y"}, `invalid argument "30" for "--grace"`, "--grace 30s; "},
		{[]string{"cache", "prune", "--older-than", "30"}, `invalid argument "30"`, "--older-than 30d; "},
		{[]string{"ls", "--platform=", "x"}, `invalid argument "" for "--platform" flag: it is empty`, "imgfs help ls"},
		{[]string{"ls", "--platform", "", "x"}, `invalid argument "" for "--platform" flag: it is empty`, "imgfs help ls"},
		{[]string{"ls", "--creds", "user:hush", "x"}, "unknown flag: --creds", "--authfile FILE; "},
		{[]string{"ls", "--src-tls-verify=false", "x"}, "unknown flag: --src-tls-verify", "--tls-verify=false; "},
		{[]string{"ls", "--insecure", "x"}, "unknown flag: --insecure", "--tls-verify=false; "},
		{[]string{"ls", "--arch", "arm64", "x"}, "unknown flag: --arch", "--platform linux/arm64; "},
		{[]string{"--override-os=windows", "ls", "x"}, "unknown flag: --override-os", "--platform windows/ARCH; "},
		{[]string{"cat", "x"}, "cat: an image and at least one path", "usage: imgfs cat "},
		{[]string{"cache", "prune"}, "cache prune: say what", "usage: imgfs cache prune "},
	} {
		t.Run(fmt.Sprint(c.args), func(t *testing.T) {
			checkRefusal(t, invoke(t, c.args...), cli.ExitUsage, []string{c.says}, c.hint)
		})
	}
	want := succeed(t, "version")
	for _, args := range [][]string{{"--version"}, {"-V"}, {"mount", "--version"}, {"-q", "--version"}} {
		if got := succeed(t, args...); got != want {
			t.Errorf("imgfs %q: got %q, want %q", args, got, want)
		}
	}
	for _, words := range []string{"mount", "ls", "cache"} {
		want := succeed(t, "help", words)
		for _, args := range [][]string{{"--help", words}, {words, "help"}, {"help", words, "--help"}} {
			if got := succeed(t, args...); got != want {
				t.Errorf("imgfs %q: got\n%s\nwant\n%s", args, got, want)
			}
		}
	}
}
