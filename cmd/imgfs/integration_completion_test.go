//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// temptingNames are names of files that a shell would make something of, each alone in a
// directory.
var temptingNames = []string{
	"plain", "two words", " lead", "$(touch pwned)", "`touch pwned`", "$HOME", "semi;touch pwned", "a&touch pwned", "a|touch pwned",
	"it's", `say "hi"`, `back\slash`, "star*", "what?", "[a-z]", "{a,b}", "#hash", "a#b", "~", "~root", "-rf", "--all", "=ls", "a=b", "co:lon", "at@home",
	"bang!x", "!!", "up^down", "<in", ">pwned", "(sub)", "umläut", "日本", "a%b", "trailing ", "'", `"`, `\`, "$", "$'x'", "%s", "a,b",
}

// hiddenNames are names of files that no shell is told of.
var hiddenNames = []string{"new\nline", "\x1b[31mred", "tab\there", "tu\u202ern", "no\xffutf8", "bell\a"}

// tempting is a layer with such files.
func tempting(a *labimage.Archive) error {
	var err error
	for i, name := range slices.Concat(temptingNames, hiddenNames) {
		err = errors.Join(err, a.Dir(fmt.Sprintf("d%d", i)), a.File(fmt.Sprintf("d%d/%s", i, name), "x"))
	}
	return errors.Join(err, a.Dir("etc"), a.Dir("etc/conf.d"), a.File("etc/conf.d/x", ""), a.File("etc/passwd", ""), a.Symlink("link", "etc"))
}

// A typist is somebody at a terminal with a shell, whose imgfs writes its arguments down.
type typist struct {
	*terminal
	dir, out string
}

// newTypist starts a shell on a terminal of 200 columns and has it read lines.
func newTypist(t *testing.T, s *sandbox, lines []string, name string, args ...string) *typist {
	t.Helper()
	need(t, name)
	w := &typist{terminal: newTerminal(t, 200, 24), dir: t.TempDir()}
	w.out = filepath.Join(w.dir, "out")
	cmd := s.program(name, args...)
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(imgfsBinary(t))+":"+os.Getenv("PATH"), "TERM=xterm", "OUT="+w.out, "LC_ALL=C.UTF-8", "ZDOTDIR="+w.dir)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = w.dir, w.tty, w.tty, w.tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.tty.Close()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	// A slow shell may lose some to the Ctrl-C that comes when it does not answer.
	for try := 0; ; try++ {
		for _, line := range lines {
			w.typed(line + "\n")
		}
		if w.types("imgfs ready") != nil {
			return w
		}
		if try == 3 {
			t.Fatalf("the shell reads nothing:\n%s", strings.Join(w.lines(), "\n"))
		}
	}
}

// types types a line with tabs in it, and returns the arguments that imgfs gets; nil if
// it is not run, as where quotes stay open.
func (w *typist) types(line string) []string {
	w.t.Helper()
	w.typed(line + "\n")
	var got []byte
	if !eventually(5*time.Second, func() bool {
		got, _ = os.ReadFile(w.out)
		return bytes.HasSuffix(got, []byte{0})
	}) {
		w.typed("\x03\n")
		return nil
	}
	os.Remove(w.out)
	return strings.Split(strings.TrimSuffix(string(got), "\x00"), "\x00")
}

// shells are the shells with what each reads at first.
func shells() map[string]func(*testing.T, *sandbox) *typist {
	posix := `imgfs() { printf '%s\0' "$@" > "$OUT"; }`
	bash := func(more ...string) func(*testing.T, *sandbox) *typist {
		return func(t *testing.T, s *sandbox) *typist {
			lines := append([]string{"PS1=", "bind 'set enable-bracketed-paste off'", "bind 'set bell-style none'"}, more...)
			return newTypist(t, s, append(lines, "source <(command imgfs completion bash)", posix), "bash", "--norc", "--noprofile", "-i")
		}
	}
	const library = "/usr/share/bash-completion/bash_completion"
	return map[string]func(*testing.T, *sandbox) *typist{
		"bash":                bash(),
		"bash without colons": bash(`COMP_WORDBREAKS=${COMP_WORDBREAKS//:}`),
		"bash with bash-completion": func(t *testing.T, s *sandbox) *typist {
			if _, err := os.Stat(library); err != nil {
				missing(t, "bash-completion is not installed")
			}
			return bash(". "+library)(t, s)
		},
		"zsh": func(t *testing.T, s *sandbox) *typist {
			return newTypist(t, s, []string{"PS1=", "unsetopt beep prompt_sp", "autoload -Uz compinit; compinit -u -D", "source <(command imgfs completion zsh)", posix}, "zsh", "-f", "-i")
		},
		"fish": func(t *testing.T, s *sandbox) *typist {
			return newTypist(t, s, []string{"function fish_prompt; end", "set -g fish_autosuggestion_enabled 0", "command imgfs completion fish | source",
				`function imgfs; printf '%s\0' $argv > $OUT; end`}, "fish", "--no-config", "-i")
		},
	}
}

// TestCompletionShells types in real shells: Tab completes commands, flags, images and
// paths in them, and whatever a file in an image is called it stays a word.
func TestCompletionShells(t *testing.T) {
	testenv.Slow(t)
	image, _ := publish(t, registrytest.New(t, nil), tempting)
	s := newSandbox(t)
	s.ok("index", image)
	writeFile(t, filepath.Join(s.dir, "archive.tar"), "")
	for name, start := range shells() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, s.in(t))
			check := func(line string, want ...string) {
				t.Helper()
				var got []string
				for range 4 { // on a busy machine a second may be too short for an answer
					if got = w.types(line); slices.Equal(got, want) {
						return
					}
				}
				t.Errorf("%q: imgfs got %q, want %q", line, got, want)
			}
			check("imgfs vers\t", "version")
			check("imgfs cac\tl\t", "cache", "ls")
			check("imgfs --off\tver\t", "--offline", "version")
			check("imgfs mount --io-uring=au\t", "mount", "--io-uring=auto")
			check("imgfs mount --io-uring au\t", "mount", "--io-uring", "auto")
			check("imgfs ls 127\t /et\tpas\t", "ls", image, "/etc/passwd")
			check("imgfs ls "+image+":/et\tpas\t", "ls", image+":/etc/passwd")
			check("imgfs ls "+image+":\t"+"etc/con\t", "ls", image+":/etc/conf.d/")
			check("imgfs ls -l "+image+":/link/pa\t /etc/conf.\t", "ls", "-l", image+":/link/passwd", "/etc/conf.d/")
			check("imgfs ls oci:"+s.dir+"/arch\t", "ls", "oci:"+s.dir+"/archive.tar")
			check("imgfs ls "+s.dir+"/arch\t", "ls", s.dir+"/archive.tar")
			check("imgfs ls nothing:/et\t", "ls", "nothing:/et")
			check("imgfs inspect "+image+":/et\t", "inspect", image+":/et")
			for i, name := range temptingNames {
				check(fmt.Sprintf("imgfs cat %s /d%d/\t", image, i), "cat", image, fmt.Sprintf("/d%d/%s", i, name))
				check(fmt.Sprintf("imgfs cat %s:/d%d/\t", image, i), "cat", image+fmt.Sprintf(":/d%d/%s", i, name))
				if name == "!!" || strings.Contains(name, "!") {
					continue // of ! within quotes each shell has its own idea
				}
				check(fmt.Sprintf("imgfs cat \"%s:/d%d/\t", image, i), "cat", image+fmt.Sprintf(":/d%d/%s", i, name))
				check(fmt.Sprintf("imgfs cat '%s:/d%d/\t", image, i), "cat", image+fmt.Sprintf(":/d%d/%s", i, name))
			}
			for i := range hiddenNames {
				path := fmt.Sprintf("/d%d/", len(temptingNames)+i)
				check("imgfs cat "+image+" "+path+"\t", "cat", image, path)
			}
			if _, err := os.Stat(filepath.Join(w.dir, "pwned")); err == nil {
				t.Error("the name of a file ran a command")
			}
			if text := w.written(); strings.Contains(text, "\x1b[31mred") || strings.Contains(text, "\u202e") {
				t.Error("the name of a file acted on the terminal")
			}
			w.typed("exit\n")
		})
	}
}

// TestCompletionAsks: nothing is asked of a registry, nothing is made, and nothing is
// waited for, where there is nothing to complete with.
func TestCompletionAsks(t *testing.T) {
	home := alone(t)
	reg := registrytest.New(t, nil)
	image, layout := publish(t, reg, small)
	for _, words := range [][]string{
		{"imgfs", "ls", image, "/et"}, {"imgfs", "ls", image + ":/et"}, {"imgfs", "cat", "fedora:/e"}, {"imgfs", "ls", "oci:" + layout + ":/et"}, {"imgfs", "umount", "/none"},
		{"imgfs", "nothing", ""}, {"imgfs", "ls", "docker-archive:" + layout + ":/"}, {"imgfs", "--cache-dir", home + "/none", "ls", image, "/"}, {"imgfs", "--nothing", "x", ""}, {"imgfs", "ls", "docker://" + image + ":/"},
	} {
		before := reg.Count()
		var out bytes.Buffer
		begun := time.Now()
		newEnv(&out, &out).run(t.Context(), append([]string{"__complete", "zsh"}, words...))
		if took := time.Since(begun); took > completeLimit+soon || strings.Count(out.String(), "\n") > 1 || reg.Count() != before {
			t.Errorf("%q: got %q after %v", words, out.String(), took)
		}
	}
	if files := filesBelow(t, home); len(files) > 0 {
		t.Errorf("completion made %q", files)
	}
	for _, args := range [][]string{{"__complete"}, {"__complete", "tcsh", "x"}, {"__complete", "bash"}, {"__complete", "bash", "imgfs $(ls", ":"}, {"__complete", "bash", "", ""}, {"__complete", "fish", "imgfs"}} {
		if r := invoke(t, args...); r.stdout != "" || r.stderr != "" {
			t.Errorf("imgfs %q: %q %q", args, r.stdout, r.stderr)
		}
	}
}
