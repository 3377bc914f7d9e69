//go:build linux

package main

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A hostileImage is one that wants to get at the machine, or at the terminal of whoever
// runs it.
type hostileImage struct {
	name   string
	config ocispec.ImageConfig
	layer  labimage.Layer // above one with the probe and an empty /etc; nil is none
	flags  []string
	args   []string
	code   int // -1: the container runs or is refused, by the runtime's choice
	says   string
	prints string // somewhere in stdout, when it runs
}

// hostileImages returns the images; victim is a directory of the machine.
func hostileImages(victim string) []hostileImage {
	probe := func(user string) ocispec.ImageConfig {
		return ocispec.ImageConfig{Entrypoint: []string{"/probe"}, Cmd: []string{"say", "alive"}, User: user}
	}
	// Paths in the image that lead to the machine's for whoever does not mind the root.
	up := strings.Repeat("../", 20) + strings.TrimPrefix(victim, "/")
	link := func(name, target string) labimage.Layer {
		return func(a *labimage.Archive) error {
			return errors.Join(a.Whiteout(name), a.Symlink(name, target))
		}
	}
	replaced := func(write func(a *labimage.Archive) error) labimage.Layer {
		return func(a *labimage.Archive) error { return errors.Join(a.Whiteout("etc/passwd"), write(a)) }
	}
	with := func(c ocispec.ImageConfig, change func(*ocispec.ImageConfig)) ocispec.ImageConfig {
		change(&c)
		return c
	}
	program := func(text string) labimage.Layer {
		return func(a *labimage.Archive) error { return a.File("program", text, labimage.Mode(0o755)) }
	}
	entry := func(name string) ocispec.ImageConfig { return ocispec.ImageConfig{Entrypoint: []string{name}} }
	escape := "\x1b[31mred\x1b]0;title\x07"
	images := []hostileImage{
		{name: "passwd of a gigabyte", config: probe("bob"), code: 126, says: "/etc/passwd",
			layer: replaced(func(a *labimage.Archive) error {
				return a.Sparse("etc/passwd", 1<<30, labimage.Chunk{Off: 0, Data: "bob:x:5:5::/:\n"})
			})},
		{name: "passwd is a pipe", config: probe("bob"), code: 126, says: "bob",
			layer: replaced(func(a *labimage.Archive) error { return a.Fifo("etc/passwd") })},
		{name: "passwd is a device", config: probe("bob"), code: 126, says: "bob",
			layer: replaced(func(a *labimage.Archive) error { return a.Device("etc/passwd", tar.TypeChar, 1, 5) })},
		{name: "passwd is a loop", config: probe("bob"), code: 126, says: "bob", layer: link("etc/passwd", "passwd")},
		{name: "passwd is the machine's", config: probe("victim"), code: 126, says: "victim", layer: link("etc/passwd", up+"/passwd")},
		{name: "passwd is the machine's, absolute", config: probe("victim"), code: 126, says: "victim", layer: link("etc/passwd", victim+"/passwd")},
		{name: "etc is the machine's", config: probe("victim"), code: 126, says: "victim", layer: link("etc", victim)},
		{name: "user with an escape", config: probe(escape), code: 126, says: `\033`},
		{name: "user with a line", config: probe("a\nimgfs: all is well"), code: 126, says: `\n`},
		{name: "user out of range", config: probe("4294967296"), code: 126, says: "4294967296"},
		{name: "user is negative", config: probe("-1"), code: 126, says: "-1"},
		{name: "environment with lines", code: 0, prints: `"A=1\nB=2\u001b[31m"`, config: with(probe(""), func(c *ocispec.ImageConfig) {
			c.Env, c.Cmd = []string{"A=1\nB=2\x1b[31m", "NOVALUE"}, []string{"report"}
		})},
		{name: "environment without names", code: -1, config: with(probe(""), func(c *ocispec.ImageConfig) { c.Env = []string{"=noname", "", "\x1b=1"} })},
		{name: "environment with NUL", code: -1, config: with(probe(""), func(c *ocispec.ImageConfig) { c.Env = []string{"A=1\x00B=2"} })},
		{name: "argument with NUL", code: -1, config: with(probe(""), func(c *ocispec.ImageConfig) { c.Cmd = []string{"say", "a\x00b"} })},
		{name: "environment of ten megabytes", code: -1, config: with(probe(""), func(c *ocispec.ImageConfig) { c.Env = []string{"A=" + strings.Repeat("a", 10<<20)} })},
		{name: "labels of ten megabytes", code: -1, config: with(probe(""), func(c *ocispec.ImageConfig) { c.Labels = map[string]string{"a": strings.Repeat("a", 10<<20)} })},
		{name: "entrypoint with an escape", code: 127, says: `\033`, config: with(probe(""), func(c *ocispec.ImageConfig) { c.Entrypoint = []string{"/" + escape} })},
		{name: "entrypoint is an option", code: 127, config: with(probe(""), func(c *ocispec.ImageConfig) {
			c.Entrypoint, c.Cmd = []string{"--bind"}, []string{"/", "/", "/probe", "say", "alive"}
		})},
		{name: "entrypoint leads out", code: 127, config: with(probe(""), func(c *ocispec.ImageConfig) { c.Entrypoint = []string{up + "/program"} })},
		{name: "entrypoint is a link out", code: 127, layer: link("program", victim+"/program"), config: with(probe(""), func(c *ocispec.ImageConfig) { c.Entrypoint = []string{"/program"} })},
		{name: "entrypoint is a pipe", code: 126, layer: func(a *labimage.Archive) error { return a.Fifo("pipe", labimage.Mode(0o755)) },
			config: with(probe(""), func(c *ocispec.ImageConfig) { c.Entrypoint = []string{"/pipe"} })},
		{name: "entrypoint without an interpreter", code: 126, says: "#!", layer: program("echo alive\n"), config: entry("/program")},
		{name: "entrypoint is empty", code: 126, layer: program(""), config: entry("/program")},
		{name: "interpreter is a directory", code: 126, layer: program("#!/etc\n"), config: entry("/program")},
		{name: "interpreter is itself", code: 126, layer: program("#!/program\n"), config: entry("/program")},
		{name: "entrypoint is half a program", code: -1, layer: program("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 100)), config: entry("/program")},
		{name: "workdir in what is mounted", code: -1, config: with(probe(""), func(c *ocispec.ImageConfig) { c.WorkingDir = "/dev/shm/made" })},
		{name: "workdir leads out", code: -1, prints: `"Dir": "/"`, config: with(probe(""), func(c *ocispec.ImageConfig) { c.WorkingDir, c.Cmd = "../..", []string{"report"} })},
		{name: "workdir is a link out", code: -1, layer: link("out", victim), config: with(probe(""), func(c *ocispec.ImageConfig) { c.WorkingDir = "/out" })},
		{name: "workdir is made behind a link", code: -1, layer: link("out", victim), config: with(probe(""), func(c *ocispec.ImageConfig) { c.WorkingDir = "/out/made" })},
		{name: "workdir is made behind dots", code: -1, layer: link("out", up), config: with(probe(""), func(c *ocispec.ImageConfig) { c.WorkingDir = "/out/made" })},
		{name: "workdir with an escape", code: -1, config: with(probe(""), func(c *ocispec.ImageConfig) { c.WorkingDir = "/" + escape })},
		{name: "hosts are the machine's", code: -1, flags: []string{"--network", "host"}, config: probe(""), layer: func(a *labimage.Archive) error {
			return errors.Join(a.Symlink("etc/resolv.conf", victim+"/passwd"), a.Symlink("etc/hosts", up+"/passwd"))
		}},
		{name: "stop signal", code: 0, config: with(probe(""), func(c *ocispec.ImageConfig) { c.StopSignal = escape })},
		{name: "attributes of overlays", code: 0, config: probe(""), layer: func(a *labimage.Archive) error {
			return errors.Join(
				a.Dir("redirected", labimage.Xattr("trusted.overlay.redirect", victim), labimage.Xattr("user.overlay.redirect", victim)),
				a.File("meta", "", labimage.Xattr("trusted.overlay.metacopy", ""), labimage.Xattr("user.overlay.metacopy", ""), labimage.Xattr("trusted.overlay.redirect", victim+"/passwd")),
				a.Device("white", tar.TypeChar, 0, 0))
		}},
		{name: "many arguments", code: -1, config: with(probe(""), func(c *ocispec.ImageConfig) { c.Cmd = slices.Repeat([]string{"say"}, 200_000) })},
	}
	for _, dir := range []string{"proc", "dev", "sys"} {
		images = append(images,
			hostileImage{name: dir + " is the machine's", code: -1, config: probe(""), layer: link(dir, victim)},
			hostileImage{name: dir + " is a file", code: -1, config: probe(""), layer: func(a *labimage.Archive) error { return a.File(dir, "file\n") }})
	}
	for _, volume := range []string{"/proc", "/", "/out/made", "../../made", "/etc/../out/made", "/" + escape, "/dev", "/proc/self/made", "/etc/passwd"} {
		images = append(images, hostileImage{name: "volume " + strings.ToValidUTF8(strings.ReplaceAll(volume, "\x1b", "ESC"), ""), code: -1, layer: link("out", victim),
			config: with(probe(""), func(c *ocispec.ImageConfig) { c.Volumes = map[string]struct{}{volume: {}} })})
	}
	return images
}

// newVictim makes a directory of the machine that no container may see or change, and
// returns a function that checks it.
func newVictim(t *testing.T) (dir string, check func(t *testing.T)) {
	t.Helper()
	dir = publicDir(t)
	if err := os.Chmod(dir, 0o777); err != nil { // for plain users too
		t.Fatal(err)
	}
	files := map[string]string{
		"passwd":  "victim:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n",
		"program": "#!/bin/sh\necho the machine's\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return dir, func(t *testing.T) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != len(files) {
			t.Errorf("a container made something on the machine: %v %v", entries, err)
		}
		for name, text := range files {
			if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != text {
				t.Errorf("a container changed %s: %q %v", name, got, err)
			}
		}
		for _, m := range mountsBelow(dir) {
			t.Errorf("a container mounted on %s", m)
		}
	}
}

// TestRunHostile runs images that want to get at the machine: they are run within its walls,
// or refused in one line.
func TestRunHostile(t *testing.T) {
	testenv.Slow(t)
	needRun(t)
	p := programs(t)
	victim, check := newVictim(t)
	images := hostileImages(victim)
	base := func(a *labimage.Archive) error {
		probe, err := os.ReadFile(p.Probe)
		if err != nil {
			return err
		}
		return errors.Join(a.Dir("etc"), a.File("etc/passwd", "root:x:0:0::/:/bin/sh\n"), a.File("probe", string(probe), labimage.Mode(0o755)))
	}
	top := publicDir(t)
	for _, who := range whoRun(t) {
		t.Run(who.name, func(t *testing.T) {
			s := runSandbox(t, who)
			before := machineOf(t, s)
			t.Run("images", func(t *testing.T) {
				for i, img := range images {
					if !fullRun() && who.uid != os.Geteuid() && i%3 != 0 {
						continue // what root is not led to, others are not
					}
					t.Run(img.name, func(t *testing.T) {
						t.Parallel()
						dir := filepath.Join(top, who.name, strings.Map(onlyLetters, img.name))
						if err := os.MkdirAll(dir, 0o755); err != nil {
							t.Fatal(err)
						}
						made := labimage.Runnable{Config: img.config, Layers: []labimage.Layer{base}}
						if img.layer != nil {
							made.Layers = append(made.Layers, img.layer)
						}
						if _, err := made.Write(dir); err != nil {
							t.Fatal(err)
						}
						runThinned(t, i, func(t *testing.T, runtime string) {
							s := s.in(t)
							s.run("index", "oci:"+dir)
							args := slices.Concat([]string{"run", "--runtime", runtime}, img.flags, []string{"oci:" + dir}, img.args)
							checkHostileRun(t, &img, s.run(args...))
							check(t)
						})
					})
				}
			})
			before.asBefore(t, s)
		})
	}
}

// ofRuntime is what a runtime says in its own words.
var ofRuntime = regexp.MustCompile(`(?m)^imgfs: (?:crun|runc|bwrap): .*$`)

func onlyLetters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '-'
}

func checkHostileRun(t *testing.T, img *hostileImage, r result) {
	t.Helper()
	ran := r.code == 0
	switch {
	case img.code >= 0 && r.code != img.code:
		t.Errorf("exit code %d, want %d", r.code, img.code)
	case !ran && r.code != 125 && r.code != 126 && r.code != 127:
		t.Errorf("exit code %d: it neither runs nor is refused", r.code)
	case ran && img.code != 0 && img.code != -1, ran && !strings.Contains(r.stdout, "alive") && !strings.Contains(r.stdout, `"Dir"`) && !strings.Contains(r.stdout, "say"):
		t.Errorf("it runs, and what it prints is %.300q", r.stdout)
	case ran && !strings.Contains(r.stdout, img.prints):
		t.Errorf("stdout has no %s:\n%s", img.prints, r.stdout)
	case !ran && r.stdout != "":
		t.Errorf("stdout is %.300q", r.stdout)
	}
	if !strings.Contains(r.stderr, img.says) {
		t.Errorf("stderr has no %q", img.says)
	}
	// A warning, what is wrong, and a hint.
	lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
	foreign := slices.ContainsFunc(lines, func(l string) bool { return l != "" && !strings.HasPrefix(l, "imgfs: ") })
	if len(lines) > 3 || foreign || !ran && r.stderr == "" || len(r.stderr) > 2000 || strings.ContainsAny(r.stderr, "\x1b\x07\x00\r") || goWords.MatchString(ofRuntime.ReplaceAllString(r.stderr, "")) {
		t.Errorf("stderr is %.2000q", r.stderr)
	}
	if r.took > 20*time.Second {
		t.Errorf("it took %v", r.took)
	}
	if t.Failed() {
		t.Logf("exit code %d, stderr:\n%.1000s", r.code, r.stderr)
	}
}
