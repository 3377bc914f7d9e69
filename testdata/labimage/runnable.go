package labimage

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Programs are files of this machine that runnable images have copies of.
type Programs struct {
	Probe   string // testdata/probe, linked statically
	Busybox string // busybox, linked statically
}

// A Runnable is an image whose programs can be run.
type Runnable struct {
	Name   string // in lower case, as registries have them
	Config ocispec.ImageConfig
	Layers []Layer
	// Architecture is that of the programs. Default: this machine's.
	Architecture string
}

// Write makes dir an OCI layout of the image, as the function Write does.
func (r *Runnable) Write(dir string) (ocispec.Descriptor, error) {
	return write(dir, defaultGzip, func(image *ocispec.Image) {
		image.Config = r.Config
		image.Architecture = cmp.Or(r.Architecture, image.Architecture)
	}, r.Layers)
}

// Runnables returns images that are run in the ways in which images are, each of which
// has probe on its PATH:
//
//   - busybox has an entrypoint, arguments of it, and /bin as a symlink;
//   - named has a user by name, with more groups, an odd passwd, and a working directory
//     that no layer has;
//   - static is one program and nothing else, as those that are called distroless;
//   - debian has the bash and coreutils of this machine with their libraries, in layers
//     that remove and replace files of one another;
//   - script has an entrypoint that is a script, a user by number, volumes, and a signal
//     to stop it.
//
// ldd, bash and coreutils have to be there.
func Runnables(p Programs) ([]Runnable, error) {
	libraries, err := linked(debianPrograms)
	if err != nil {
		return nil, err
	}
	path := "PATH=/usr/local/bin:/usr/bin:/bin"
	return []Runnable{
		{Name: "busybox", Config: ocispec.ImageConfig{
			Env:        []string{path, "GREETING=hello world", "EMPTY=", "UNICODE=grüße"},
			Entrypoint: []string{"/usr/bin/env", "ENTRY=yes"},
			Cmd:        []string{"probe", "report"},
			WorkingDir: "/srv/app",
			Labels:     map[string]string{ocispec.AnnotationTitle: "busybox"},
		}, Layers: []Layer{p.system, func(a *Archive) error {
			return writeAll(a, []entry{dir("srv"), dir("srv/app"), file("srv/app/page", "page\n")})
		}}},
		{Name: "named", Config: ocispec.ImageConfig{
			Env:        []string{path},
			Cmd:        []string{"probe", "report"},
			User:       "worker",
			WorkingDir: "/does/not/exist yet",
		}, Layers: []Layer{p.system, oddAccounts}},
		{Name: "static", Config: ocispec.ImageConfig{
			Entrypoint: []string{"/probe"},
			Cmd:        []string{"report"},
		}, Layers: []Layer{func(a *Archive) error { return a.program(p.Probe, "probe") }}},
		{Name: "debian", Config: ocispec.ImageConfig{
			Env: []string{path, "LANG=C.UTF-8"},
			Cmd: []string{"bash"},
		}, Layers: []Layer{
			func(a *Archive) error { return p.debian(a, libraries) },
			func(a *Archive) error {
				return writeAll(a, []entry{whiteout("opt/gone"), whiteout("opt/tool"), opaque("opt/emptied"), file("opt/emptied/new", "new\n")})
			},
			func(a *Archive) error {
				return writeAll(a, []entry{
					file("opt/tool", "#!/bin/bash\necho tool: \"$@\"\n", Mode(0o755)), link("opt/same-tool", "opt/tool", Mode(0o755)),
					symlink("opt/to-tool", "/opt/same-tool"), file("etc/motd", "third layer\n"),
				})
			},
		}},
		{Name: "script", Config: ocispec.ImageConfig{
			Env:        []string{path, "HOME=/data"},
			Entrypoint: []string{"/entry.sh", "first"},
			Cmd:        []string{"probe", "report"},
			User:       "1234:5678",
			StopSignal: "SIGUSR1",
			Volumes:    map[string]struct{}{"/data": {}, "/var/lib/made": {}},
		}, Layers: []Layer{p.system, func(a *Archive) error {
			return writeAll(a, []entry{
				file("entry.sh", "#!/bin/sh\necho \"entry: $1, $# arguments\"\nshift\nexec \"$@\"\n", Mode(0o755)),
				dir("data", Owner(1234, 5678)), file("data/kept", "kept\n", Owner(1234, 5678)),
			})
		}}},
	}, nil
}

// applets are those of busybox that the images have.
var applets = strings.Fields("cat chmod cp date dd echo env false grep head hostname id kill ln ls mkdir mount ps pwd readlink rm sed sh sleep sort stat stty tail test touch tr true tty uname umask wc")

// system writes a small system of busybox and probe, with /bin as a link to /usr/bin.
func (p Programs) system(a *Archive) error {
	err := writeAll(a, []entry{
		dir("dev"), dir("etc"), dir("home"), dir("proc"), dir("root", Mode(0o700)), dir("run"), dir("sys"), dir("tmp", Mode(0o1777)),
		dir("usr"), dir("usr/bin"), dir("usr/sbin"), dir("usr/local"), dir("usr/local/bin"), dir("var"), dir("var/lib"),
		symlink("bin", "usr/bin"), symlink("sbin", "usr/sbin"),
		file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
		file("etc/group", "root:x:0:\nadm:x:4:root,nobody\nnogroup:x:65534:\n"),
	})
	if err != nil {
		return err
	}
	for _, name := range applets {
		if err := a.Symlink("usr/bin/"+name, "busybox"); err != nil {
			return err
		}
	}
	if err := a.program(p.Busybox, "usr/bin/busybox"); err != nil {
		return err
	}
	return a.program(p.Probe, "usr/local/bin/probe")
}

// program writes a copy of a file of this machine that can be executed.
func (a *Archive) program(path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return a.Copy(name, st.Size(), f, Mode(0o755))
}

// oddAccounts writes a passwd, behind a symlink, and a group as nobody should. What
// programs read of them is the same nevertheless, as long as what they read twice has
// its lines before the odd ones: some of podman's readers stop there.
func oddAccounts(a *Archive) error {
	passwd := "root:x:0:0:root:/root:/bin/sh\nworker:x:2000:2001:Work,,,:/home/worker:/bin/sh\n" +
		"# accounts\n\n:::\n   \n+::::::\nlong:x:12:12:" + strings.Repeat("g", 60_000) + ":/:/bin/sh\n" +
		"short:x\nletters:x:a:b::/:\nworker:x:1:1:again:/:/bin/sh\n-1:x:3:3::/:\nlast:x:2005:2005::/home/last:/bin/sh"
	group := "root:x:0:\nstaff:x:2001:\nextra:x:2010:worker\nmore:x:2011:root,worker,last\n" +
		"# groups\n\nbroken\ntwice:x:2012:worker,worker\nspaced:x:2013: worker\nlast:x:2005:"
	return writeAll(a, []entry{
		whiteout("etc/passwd"), dir("usr/share"),
		symlink("etc/passwd", "../usr/share/passwd"), file("usr/share/passwd", passwd), file("etc/group", group),
		dir("home/worker", Owner(2000, 2001), Mode(0o700)),
	})
}

var debianPrograms = strings.Fields("bash cat chmod dd echo env false head id ls mkdir pwd readlink rm sleep sort stat stty tail touch true tty uname wc whoami")

// debian writes the programs of this machine with what they are linked to.
func (p Programs) debian(a *Archive, libraries []string) error {
	err := writeAll(a, []entry{
		dir("etc"), dir("tmp", Mode(0o1777)), dir("root", Mode(0o700)), dir("usr"), dir("usr/bin"), dir("usr/local"), dir("usr/local/bin"), dir("usr/lib"), dir("opt"), dir("opt/emptied"),
		symlink("bin", "usr/bin"), symlink("lib", "usr/lib"), symlink("lib64", "usr/lib"),
		file("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"), file("etc/group", "root:x:0:\n"), file("etc/motd", "first layer\n"),
		file("opt/gone", "gone\n"), file("opt/tool", "old\n"), link("opt/kept-tool", "opt/tool"), file("opt/emptied/old", "old\n"),
	})
	if err != nil {
		return err
	}
	for _, name := range debianPrograms {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if err := a.program(path, "usr/bin/"+name); err != nil {
			return err
		}
	}
	for _, path := range libraries {
		// The loader looks in /usr/lib too.
		if err := a.program(path, "usr/lib/"+filepath.Base(path)); err != nil {
			return err
		}
	}
	return a.program(p.Probe, "usr/local/bin/probe")
}

// linked returns what programs are linked to, the loader among it.
func linked(programs []string) ([]string, error) {
	var paths []string
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return linkedTo(paths)
}

// linkedTo returns what some files are linked to, the loader among it.
func linkedTo(paths []string) ([]string, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("programs of %s run in no container", runtime.GOOS)
	}
	out, err := exec.Command("ldd", paths...).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd: %w", err)
	}
	var all []string
	for line := range bytes.Lines(out) {
		// libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…), or the loader's path alone
		for _, f := range strings.Fields(string(line)) {
			if strings.HasPrefix(f, "/") && !strings.HasSuffix(f, ":") && !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	return all, nil
}
