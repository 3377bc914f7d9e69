//go:build linux

package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/spf13/pflag"
)

// allCommands returns all commands by their words, aliases included.
func allCommands() map[string]cli.Command {
	all := map[string]cli.Command{}
	var add func(before string, list []cli.Command)
	add = func(before string, list []cli.Command) {
		for _, c := range list {
			for _, name := range append([]string{c.Name}, c.Aliases...) {
				all[before+name] = c
			}
			add(before+c.Name+" ", c.Commands)
		}
	}
	add("", newEnv(nil, nil).program().Commands)
	return all
}

// goldenHelp returns the help of a command, or of imgfs for "", as it is to be.
func goldenHelp(t *testing.T, name string) string {
	t.Helper()
	name = strings.Replace(name, "unmount", "umount", 1)
	text, err := os.ReadFile(filepath.Join("testdata", "help", strings.Join(append([]string{"imgfs"}, strings.Fields(name)...), "-")+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestHelp compares the help of each command with a file, byte for byte, however
// it is asked for.
func TestHelp(t *testing.T) {
	alone(t)
	names := append(slices.Collect(maps.Keys(allCommands())), "")
	for _, topic := range helpTopics {
		names = append(names, topic.Name)
	}
	if files, err := filepath.Glob("testdata/help/*.txt"); err != nil || len(files) != len(names)-len([]string{"unmount"}) {
		t.Errorf("%d files of help, error %v; there are the commands %q", len(files), err, names)
	}
	for _, name := range names {
		want, words := goldenHelp(t, name), strings.Fields(name)
		ways := [][]string{slices.Concat([]string{"help"}, words), slices.Concat([]string{"--help"}, words), slices.Concat([]string{"--quiet", "help"}, words)}
		isTopic := slices.ContainsFunc(helpTopics, func(topic cli.Topic) bool { return topic.Name == name })
		if !isTopic {
			ways = append(ways, slices.Concat(words, []string{"--help"}), slices.Concat([]string{"--quiet"}, words, []string{"--help"}))
		}
		if name != "" && !isTopic && allCommands()[name].Commands == nil {
			ways = append(ways, slices.Concat(words, []string{"--help", "x", "y", "z"}))
			if name != "run" { // there it is a word of the command in the container
				ways = append(ways, slices.Concat(words, []string{"x", "--help", "y", "z"}))
			}
		}
		for _, args := range ways {
			r := invoke(t, args...)
			if r.code != 0 || r.stdout != want || r.stderr != "" {
				t.Errorf("imgfs %q: got exit code %d, stdout\n%sstderr\n%swant 0 and\n%s", args, r.code, r.stdout, r.stderr, want)
			}
		}
		if r := invoke(t, slices.Concat(words, []string{"-h"})...); !has(name, "h") && !isTopic { // else it has a meaning
			checkRefusal(t, r, max(cli.ExitUsage, allCommands()[name].Failure), []string{"unknown flag -h; help is --help"}, strings.TrimSpace("imgfs help "+name))
		}
		lines := strings.Split(strings.TrimSuffix(want, "\n"), "\n")
		if len(lines) > 24 {
			t.Errorf("the help of %q has %d lines, more than a screen", name, len(lines))
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > 80 || strings.ContainsRune(line, '\t') {
				t.Errorf("the help of %q has a line of %d columns: %q", name, n, line)
			}
		}
		// The commands of imgfs profile, podman and snapshotter are in their own help.
		if name != "unmount" && !strings.HasPrefix(name, "snapshotter ") && !strings.HasPrefix(name, "profile ") && !strings.HasPrefix(name, "podman ") && !regexp.MustCompile(`(?m)^  .*\b`+name+`\b`).MatchString(goldenHelp(t, "")) {
			t.Errorf("the help of imgfs does not mention %s", name)
		}
	}
}

// has reports whether a command has a flag of one letter.
func has(name, letter string) bool {
	c, flags := allCommands()[name], pflag.NewFlagSet(name, pflag.ContinueOnError)
	if c.Setup != nil {
		c.Setup(flags)
	}
	return flags.ShorthandLookup(letter) != nil
}

var flagLine = regexp.MustCompile(`(?m)^ +(?:(-\w), )?--([a-z-]+)`)

// TestHelpNamesFlags checks that help has every flag of a command, and no
// other.
func TestHelpNamesFlags(t *testing.T) {
	for name, c := range allCommands() {
		if c.Setup != nil {
			checkFlags(t, name, func(f *pflag.FlagSet) { c.Setup(f) })
		}
	}
	checkFlags(t, "flags", newEnv(nil, nil).globalFlags()...)
}

// checkFlags checks that the help of a command has the flags that functions
// declare.
func checkFlags(t *testing.T, name string, declare ...func(*pflag.FlagSet)) {
	t.Helper()
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	for _, f := range declare {
		f(flags)
	}
	if got, want := flagsIn(goldenHelp(t, name)), flagsOf(flags); !slices.Equal(got, want) {
		t.Errorf("the help of imgfs %s has the flags %q, it takes %q", name, got, want)
	}
}

func flagsIn(text string) (names []string) {
	for _, m := range flagLine.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1]+"--"+m[2])
	}
	slices.Sort(names)
	return names
}

func flagsOf(flags *pflag.FlagSet) (names []string) {
	flags.VisitAll(func(f *pflag.Flag) {
		short := ""
		if f.Shorthand != "" {
			short = "-" + f.Shorthand
		}
		if !f.Hidden {
			names = append(names, short+"--"+f.Name)
		}
	})
	slices.Sort(names)
	return names
}

// examplesIn returns the commands that a help text ends with.
func examplesIn(t *testing.T, text string) []string {
	t.Helper()
	_, examples, ok := strings.Cut(text, "\nexample:")
	if !ok || !strings.HasSuffix(examples, "\n") {
		t.Fatalf("no example at the end of\n%s", text)
	}
	var all []string
	for line := range strings.Lines(examples) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// TestHelpExamples runs the examples of the help texts, with an image that exists here.
func TestHelpExamples(t *testing.T) {
	testenv.Slow(t)
	needFUSE(t)
	reg := registrytest.New(t, &registrytest.Options{Writable: true})
	image, _ := publish(t, reg, small)
	s := newSandbox(t)
	dir := filepath.Join(s.dir, "fedora")
	here := strings.NewReplacer("fedora:latest", image, "fedora:43", image, "mount fedora ", "mount "+image+" ", "registry.example.com", reg.Host())
	path := "PATH=" + filepath.Dir(imgfsBinary(t)) + ":" + os.Getenv("PATH")
	all := allCommands()
	order := []string{"", "version", "index", "index push", "inspect", "ls", "cat", "cp", "tar", "find", "tree", "du", "grep", "sum", "diff", "cache", "cache ls", "cache verify", "config", "completion", "mount", "ps", "stats", "umount", "cache prune"}
	order = append(order, "history", "stat", "snapshotter config")
	if len(order) != len(all)+len([]string{""})-len([]string{"unmount", "bundle", "run", "explore", "upgrade", "snapshotter", "snapshotter fetch", "podman", "podman add", "podman ls", "podman rm", "profile", "profile show", "profile export", "profile import", "profile rm"}) {
		// Nothing can be run in this image, so there is no profile: see TestProfileFiles, and for podman TestEnginesDocPodman. explore wants a terminal, upgrade --all takes others' mounts, snapshotter serves, and its fetch wants containerd.
		t.Errorf("%d commands, the examples of %d of them are tried", len(all), len(order))
	}
	for _, name := range order {
		for _, example := range examplesIn(t, goldenHelp(t, name)) {
			cmd := s.program("sh", "-ec", here.Replace(example))
			cmd.Env = append(cmd.Env, path)
			if r := s.finish(cmd); r.code != 0 {
				t.Errorf("%s: got exit code %d:\n%s%s", example, r.code, r.stdout, r.stderr)
			}
		}
	}
	s.gone(dir)
}

func TestVersion(t *testing.T) {
	alone(t)
	if got := succeed(t, "version"); !regexp.MustCompile(`^imgfs \S+\n$`).MatchString(got) {
		t.Errorf("got %q, want imgfs and a version", got)
	}
	doc := parsed[versionDoc](t, "version", "--json")
	if want := runtime.GOOS + "/" + runtime.GOARCH; "imgfs "+doc.Version+"\n" != succeed(t, "version") || doc.Go != runtime.Version() || doc.Platform != want {
		t.Errorf("got %+v", doc)
	}
}

// TestGlobalFlags has the flags before the command and after it, and between
// its arguments.
func TestGlobalFlags(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	store := sourcetest.NewStore()
	layer := sourcetest.Layer{Content: tarOf(t)}
	arm := sourcetest.Layer{Content: []byte(strings.Repeat("\x00", 2048))}
	image := publishStore(reg, store, store.AddIndex(
		store.AddImage(sourcetest.Image{Platform: "linux/arm/v6", Layers: []sourcetest.Layer{arm}}),
		store.AddImage(sourcetest.Image{Platform: "linux/arm64", Layers: []sourcetest.Layer{layer}})))
	cache := t.TempDir()
	for _, c := range []struct {
		args []string
		want string // architecture
	}{
		{[]string{"--platform", "linux/arm64", "--cache-dir", cache, "inspect", image}, "arm64"},
		{[]string{"inspect", "--platform", "linux/arm64", "--cache-dir", cache, image}, "arm64"},
		{[]string{"inspect", image, "--platform=linux/arm64", "--cache-dir=" + cache}, "arm64"},
		{[]string{"--cache-dir", cache, "inspect", image, "--platform", "arm64"}, "arm64"},
		{[]string{"--platform=linux/amd64", "inspect", "--cache-dir", cache, image, "--platform=aarch64"}, "arm64"},
		{[]string{"--cache-dir", cache, "--platform", "linux/arm/v7", "inspect", image}, "arm"},
		{[]string{"--cache-dir", cache, "--platform", "linux/arm/v6", "inspect", image}, "arm"},
		{[]string{"--cache-dir", cache, "--platform", "linux/arm64/v8", "inspect", image}, "arm64"},
	} {
		_, values := members(t, succeed(t, c.args...))
		if got := values["Architecture"]; got != c.want {
			t.Errorf("imgfs %q: got %v, want %s", c.args, got, c.want)
		}
	}
	checkRefusal(t, invoke(t, "--cache-dir", cache, "--platform", "linux/arm/v5", "inspect", image), cli.ExitFailure, []string{image, "linux/arm/v5; there is linux/arm/v6, linux/arm64"}, "--platform")
}

func TestCacheDirectory(t *testing.T) {
	home := alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	t.Chdir(home)
	checkRefusal(t, invoke(t, "index", image, "--cache-dir="), cli.ExitUsage, []string{"--cache-dir", "it is empty; leave the flag out"}, "")
	for _, c := range []struct {
		name, xdg, env, flag, want string
	}{
		{"home", "", "", "", ".cache/imgfs"},
		{"XDG", home + "/xdg", "", "", "xdg/imgfs"},
		{"relative XDG is ignored", "xdg2", "", "", ".cache/imgfs"},
		{"environment before XDG", home + "/xdg", home + "/env", "", "env"},
		{"flag before environment", home + "/xdg", home + "/env", "--cache-dir=" + home + "/flag", "flag"},
		{"relative", "", "", "--cache-dir=relative/dir", "relative/dir"},
		{"home in a flag", home + "/xdg", "", "--cache-dir=~/flag2", "flag2"},
		{"home in the environment", "", "~/env2", "", "env2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("XDG_CACHE_HOME", c.xdg)
			t.Setenv("IMGFS_CACHE_DIR", c.env)
			if err := os.RemoveAll(filepath.Join(home, c.want)); err != nil {
				t.Fatal(err)
			}
			args := []string{"index", image}
			if c.flag != "" {
				args = append(args, c.flag)
			}
			succeed(t, args...)
			if _, err := os.Stat(filepath.Join(home, c.want, "indexes")); err != nil {
				t.Errorf("the cache is not in %s: %v", c.want, err)
			}
			if info, err := os.Stat(filepath.Join(home, c.want)); err == nil && info.Mode().Perm() != 0o700 {
				t.Errorf("others can look into the cache: %v", info.Mode())
			}
		})
	}
}

// TestSecretsStaySecret looks for credentials in all that imgfs prints and
// keeps, with everything on that makes it talk.
func TestSecretsStaySecret(t *testing.T) {
	testenv.Slow(t)
	home := alone(t)
	const user, password = "someone", "hush-hush-4711"
	secrets := []string{password, "c29tZW9uZTpodXNoLWh1c2gtNDcxMQ", "secret-token", "secret-signature", "Bearer", "Basic "}
	for name, opts := range map[string]*registrytest.Options{
		"basic":  {Login: registrytest.Basic, User: user, Password: password, CDN: true},
		"bearer": {Login: registrytest.Bearer, User: user, Password: password, CDN: true},
		"TLS":    {Login: registrytest.Bearer, User: user, Password: password, CDN: true, TLS: true},
	} {
		t.Run(name, func(t *testing.T) {
			reg := registrytest.New(t, opts)
			image, _ := publish(t, reg, small)
			cache := t.TempDir()
			global := []string{"--verbose", "--tls-verify=false", "--cache-dir", cache, credentials(t, reg.Host(), user, password)}
			var said strings.Builder
			for _, args := range [][]string{{"ls", "-R", image}, {"index", image}, {"inspect", image}, {"cat", image, "/etc/os-release"}} {
				r := invoke(t, append(global, args...)...)
				if r.code != 0 {
					t.Errorf("imgfs %q: got exit code %d:\n%s", args, r.code, r.stderr)
				}
				said.WriteString(r.stdout + r.stderr)
			}
			if !strings.Contains(said.String(), "/storage/") || !strings.Contains(said.String(), ": 401 in") {
				t.Errorf("--verbose does not show the requests:\n%s", said.String())
			}
			// Now everything goes wrong.
			for _, kind := range []registrytest.Kind{registrytest.Manifest, registrytest.Blob, registrytest.CDN, registrytest.Tags, registrytest.Token} {
				reg.Inject(kind, registrytest.Always(registrytest.Status(403)))
				for _, command := range []string{"ls", "inspect"} {
					args := append(slices.Clone(global), "--cache-dir", t.TempDir(), command, image)
					r := invoke(t, args...)
					said.WriteString(r.stdout + r.stderr)
				}
				reg.Inject(kind, nil)
			}
			for _, file := range filesBelow(t, cache) {
				text, err := os.ReadFile(filepath.Join(cache, file))
				if err != nil {
					t.Fatal(err)
				}
				said.Write(text)
			}
			for _, s := range secrets {
				if i := strings.Index(said.String(), s); i >= 0 {
					t.Errorf("%q is in what was said or kept: …%s…", s, said.String()[max(0, i-200):min(said.Len(), i+100)])
				}
			}
		})
	}
	for _, file := range filesBelow(t, home) {
		t.Errorf("%s was left in the home directory", file)
	}
}
