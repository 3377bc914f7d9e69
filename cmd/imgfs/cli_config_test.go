//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// writeConfig writes the configuration file of a home directory.
func writeConfig(t *testing.T, home, text string) (path string) {
	t.Helper()
	path = filepath.Join(home, ".config", "imgfs", "config.toml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	return writeFile(t, path, text)
}

// inForceNow returns the settings that imgfs config prints.
func inForceNow(t *testing.T, args ...string) map[string]configSetting {
	t.Helper()
	var doc configDoc
	if err := show.Unmarshal([]byte(succeed(t, append([]string{"config", "--json"}, args...)...)), &doc); err != nil {
		t.Fatal(err)
	}
	all := map[string]configSetting{}
	for _, s := range doc.Settings {
		all[s.Key] = s
	}
	return all
}

// TestSettingOrder: a flag counts more than a variable, that more than the file, and a
// command's table more than what is for all.
func TestSettingOrder(t *testing.T) {
	home := alone(t)
	image, _ := publish(t, registrytest.New(t, nil), small)
	made := func(want string, args ...string) {
		t.Helper()
		r := invoke(t, append(args, "index", image)...)
		if _, err := os.Stat(filepath.Join(home, want, "indexes")); r.code != 0 || err != nil {
			t.Errorf("imgfs %q: the cache is not in %s: %v\n%s", args, want, err, r.stderr)
		}
		if err := os.RemoveAll(filepath.Join(home, want)); err != nil {
			t.Fatal(err)
		}
	}
	made(".cache/imgfs")
	writeConfig(t, home, "cache-dir = '~/file'\n[mount]\ncache-dir = '~/mount'\n")
	made("file")
	writeConfig(t, home, "cache-dir = '~/file'\n[index]\ncache-dir = '~/table'\n")
	made("table")
	t.Setenv("IMGFS_CACHE_DIR", home+"/env")
	made("env")
	made("flag", "--cache-dir", home+"/flag")
}

// TestSettingsOfCommands: what a file says for a command is as if its flags stood before
// the others.
func TestSettingsOfCommands(t *testing.T) {
	home := alone(t)
	image, _ := publish(t, registrytest.New(t, nil), small)
	path := writeConfig(t, home, "[ls]\nformat = 'long'\nall = true\n[index]\njson = true\n")
	lines := strings.Split(strings.TrimSpace(succeed(t, "ls", image)), "\n")
	if last := strings.Fields(lines[len(lines)-1]); len(last) < 8 || !strings.Contains(lines[1], " .") {
		t.Errorf("ls is not long, or not of all:\n%s", strings.Join(lines, "\n"))
	}
	if out := succeed(t, "ls", "-C", image); strings.Contains(out, "root") {
		t.Errorf("ls -C is long:\n%s", out)
	}
	if out := succeed(t, "index", image); !strings.HasPrefix(out, "[") {
		t.Errorf("index prints no JSON:\n%s", out)
	}
	if out := succeed(t, "index", "--json=false", image); strings.HasPrefix(out, "[") {
		t.Errorf("index --json=false prints JSON:\n%s", out)
	}
	// What a file sets gives a hint where it is in the way.
	writeConfig(t, home, "offline = true\n")
	checkRefusal(t, invoke(t, "index", "--fetch", image), cli.ExitUsage, []string{"exclude each other"}, "--offline=false; it is set in "+path+":1")
	succeed(t, "index", "--fetch", "--offline=false", image)
}

// TestBadSettings: a mistake names its place and what was meant, and what mends it works.
func TestBadSettings(t *testing.T) {
	home := alone(t)
	for _, c := range []struct{ text, says, hint string }{
		{"oflline = true", ":1: there is no key oflline", "offline"},
		{"\ncache_dir = '/x'", ":2: there is no key cache_dir", "cache-dir"},
		{"prefetch = true", ":1: there is no key prefetch", "[mount] before it"},
		{"help = true", ":1: there is no key help", "imgfs config lists them"},
		{"cache-size = 'lots'", ":1: cache-size: \"lots\" is not a size", ""},
		{"offline = 'maybe'", ":1: offline: ", ""},
		{"cache-dir = 'relative'", ":1: cache-dir: relative is relative", ""},
		{"cache-dir = ['/a', '/b']", ":1: cache-dir is one value", ""},
		{"[moumt]\nprefetch = true", ":1: there is no command moumt", "[mount]"},
		{"[cache.prun]\nx = true", ":1: there is no command cache prun", "[cache.prune]"},
		{"offline = ", ":1: ", ""},
	} {
		path := writeConfig(t, home, c.text+"\n")
		checkRefusal(t, invoke(t, "cache", "ls"), cli.ExitFailure, []string{path + c.says}, c.hint)
		r := invoke(t, "config")
		if r.code != cli.ExitFailure || !strings.Contains(r.stderr, path+c.says) || !strings.Contains(r.stdout, "cache-dir") {
			t.Errorf("%q: imgfs config: exit code %d\n%s%s", c.text, r.code, r.stdout, r.stderr)
		}
		for _, args := range [][]string{{"help"}, {"help", "config"}, {"cache", "--help"}, {"version"}, {"--version"}} {
			succeed(t, args...)
		}
		t.Setenv("IMGFS_CONFIG", "")
		succeed(t, "cache", "ls")
		os.Unsetenv("IMGFS_CONFIG")
	}
	// What is wrong for one command is nothing to another, but to imgfs config.
	for text, says := range map[string]string{
		"[mount]\nprefech = true":             ":2: there is no key prefech",
		"[mount]\noptions = 'ro'":             ":2: options cannot be set here",
		"[cache.prune]\nall = true":           ":2: all cannot be set here",
		"[cache]\nall = true":                 ":2: there is no key all",
		"[mount]\ngrace = 'long'":             ":2: grace: ",
		"[mount]\ndetached = true":            ":2: there is no key detached",
		"[mount]\nindex-trust = 'everybody'":  ":2: index-trust: ",
		"[mount]\nauthfile = 'here'":          ":2: authfile: here is relative",
		"[mount]\nmax-requests = [1]":         ":2: max-requests: a list has texts",
		"[mount]\ngrace = ['1s', '2s']":       ":2: grace is one value",
		"[mount]\n[mount.more]\nprefetch = 1": ":2: there is no command mount more",
	} {
		path := writeConfig(t, home, text+"\n")
		r := invoke(t, "config")
		if r.code != cli.ExitFailure || !strings.Contains(r.stderr, path+says) {
			t.Errorf("%q: imgfs config: exit code %d, %s", text, r.code, r.stderr)
		}
	}
	writeConfig(t, home, "[mount]\nprefech = true\n")
	succeed(t, "cache", "ls")
}

// TestConfig: the settings in force, and where they come from.
func TestConfig(t *testing.T) {
	home := alone(t)
	path := writeConfig(t, home, "cache-size = '20G'\nindex-repo = ['localhost:1/a', 'localhost:1/b']\nauthfile = '~/auth.json'\n[mount]\nretries = 3\nplatform = 'arm64'\n")
	t.Setenv("IMGFS_CACHE_DIR", "~/env")
	got := inForceNow(t, "--platform", "linux/riscv64")
	for _, want := range []configSetting{
		{Key: "cache-dir", Value: home + "/env", From: "variable", Variable: "IMGFS_CACHE_DIR"},
		{Key: "cache-size", Value: "20G", From: "file", Line: 1},
		{Key: "index-repo", Value: "localhost:1/a,localhost:1/b", From: "file", Line: 2},
		{Key: "authfile", Value: home + "/auth.json", From: "file", Line: 3},
		{Key: "platform", Value: "linux/riscv64", From: "flag"},
		{Key: "offline", Value: "false", From: "default"},
		{Key: "mount.retries", Value: "3", From: "file", Line: 5},
		{Key: "mount.platform", Value: "arm64", From: "file", Line: 6},
	} {
		if got[want.Key] != want {
			t.Errorf("%s: got %+v, want %+v", want.Key, got[want.Key], want)
		}
	}
	if _, ok := got["mount.grace"]; ok {
		t.Error("defaults of commands are listed")
	}
	if got := inForceNow(t, "mount.grace", "cache-dir"); len(got) != 2 || got["mount.grace"].Value != "30s" {
		t.Errorf("by name: %+v", got)
	}
	table := succeed(t, "config", "cache-size", "mount.retries")
	if want := "KEY            VALUE  FROM\ncache-size     20G    " + path + ":1\nmount.retries  3      " + path + ":5\n"; table != want {
		t.Errorf("got\n%s\nwant\n%s", table, want)
	}
	checkRefusal(t, invoke(t, "config", "cache-sise"), cli.ExitUsage, []string{"there is no key cache-sise"}, "imgfs config cache-size")
	checkRefusal(t, invoke(t, "config", "cache.prune.all"), cli.ExitUsage, []string{"there is no key cache.prune.all"}, "")
}

// TestMountKeepsSettings: the process of a mount has the settings of the command that
// began it, whatever becomes of the file.
func TestMountKeepsSettings(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	s.env = slices.DeleteFunc(s.env, func(v string) bool { return strings.HasPrefix(v, "IMGFS_CACHE_DIR=") })
	file := filepath.Join(s.dir, "settings.toml")
	s.env = append(s.env, "IMGFS_CONFIG=settings.toml") // relative: the process of the mount is elsewhere
	writeFile(t, file, "cache-dir = '~/kept'\n[mount]\nprefetch = true\nretries = 2\ngrace = '7s'\n")
	dir := s.mount(image)
	args, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(s.daemon(dir)), "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--cache-dir=" + s.dir + "/kept", "--prefetch=true", "--retries=2", "--grace=7s"} {
		if !slices.Contains(strings.Split(string(args), "\x00"), want) {
			t.Errorf("the process of the mount lacks %s: %q", want, args)
		}
	}
	if got := s.stats(dir); got.Prefetch.State == "off" || got.CacheDir != s.dir+"/kept" {
		t.Errorf("prefetch %s, cache %s", got.Prefetch.State, got.CacheDir)
	}
	s.umount(dir)
	// A setting gives way to a flag that excludes it.
	s.umount(s.mount(image, "--offline"))
}

// TestConfigExample: what docs/usage.md shows as a file is one.
func TestConfigExample(t *testing.T) {
	_, text, _ := strings.Cut(readDoc(t, "docs/usage.md"), "```toml\n")
	text, _, found := strings.Cut(text, "```")
	if !found {
		t.Fatal("docs/usage.md shows no file")
	}
	writeConfig(t, alone(t), text)
	fromFile := 0
	for _, s := range inForceNow(t) {
		if s.From == "file" {
			fromFile++
		}
	}
	if want := strings.Count(text, " = "); fromFile != want || want < 5 {
		t.Errorf("%d settings in force of %d in\n%s", fromFile, want, text)
	}
}
