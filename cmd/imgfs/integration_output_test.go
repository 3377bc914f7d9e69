//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// ownTabs are those that du and stat print themselves, as coreutils do.
var ownTabs = regexp.MustCompile(`(?m)^[0-9]+\t|[0-9] +\t(?:Blocks|Links):`)

// TestStrangeNamesOnTerminal has the commands that print names of files print those of a
// stranger on a terminal, and in a pipe byte for byte where people expect that.
func TestStrangeNamesOnTerminal(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	image, _ := strangeImage(t, filepath.Join(s.dir, "layout"))
	plain := filepath.Join(s.dir, "plain")
	if _, err := labimage.Write(plain, small); err != nil {
		t.Fatal(err)
	}
	file := "dir" + strangeName + "/file" + strangeName
	for _, args := range [][]string{
		{"find", image}, {"find", image, "-print0"}, {"find", image, "-ls"}, {"find", image, "-printf", "%p|%f|%h|%P|%H|%l|%u|%g\n"}, {"find", image + ":/dir" + strangeName}, {"find", "--json", image}, {"find", "-L", image},
		{"find", image, "no" + strangeName}, {"find", image, "-name", "x", "-no" + strangeName}, {"find", image, "-newer", "no" + strangeName},
		{"tree", image}, {"tree", "-f", image}, {"tree", "-N", image}, {"tree", "-Q", image}, {"tree", "-pugsD", image}, {"tree", "--charset=ASCII", image}, {"tree", "--json", image}, {"tree", image, "no" + strangeName}, {"tree", image + ":/dir" + strangeName},
		{"du", "-a", image}, {"du", image, "dir" + strangeName}, {"du", "-a", "--json", image}, {"du", "-0", image}, {"du", "--layers", image}, {"du", image, "no" + strangeName},
		{"sum", "-r", image}, {"sum", "-r", "--tag", image}, {"sum", "--json", image, file}, {"sum", image, "no" + strangeName, "dir" + strangeName},
		{"grep", "-r", "no line", image, "no" + strangeName, "/"}, {"grep", "-rc", "x", image, "/"}, {"grep", "-rL", "x", image, "/"}, {"grep", "-rL", "--json", "x", image, "/"}, {"grep", "x", image, "no" + strangeName},
		{"diff", image, "oci:" + plain}, {"diff", "oci:" + plain, image}, {"diff", "--stat", image, "oci:" + plain}, {"diff", "-u", image, "oci:" + plain}, {"diff", "--json", image, "oci:" + plain}, {"diff", "--name-only", "-z", image, "oci:" + plain},
		{"stat", image, file, "link" + strangeName, "attributes"}, {"stat", "--json", image, file}, {"history", image}, {"history", "--no-trunc", image}, {"history", "--json", image},
		{"ls", "-R", "--json", image}, {"ls", "-lR", "--layers", image}, {"cp", image, "no" + strangeName, "."}, {"tar", image, "no" + strangeName},
	} {
		screen := screenOf(t, s.command(args...))
		// What the user asked for with -print0, -0 and -z ends in zero bytes, which do nothing.
		screen = ownTabs.ReplaceAllString(strings.ReplaceAll(screen, "\x00", "\n"), "")
		checkHarmless(t, fmt.Sprintf("imgfs %q, on a terminal,", args), screen)
		if screen == "" {
			t.Errorf("imgfs %q printed nothing", args)
		}
		checkHarmless(t, fmt.Sprintf("imgfs %q, on stderr,", args), s.run(args...).stderr)
	}
	for _, args := range [][]string{{"find", image, "-print0"}, {"find", image}, {"du", "-a0", image}, {"grep", "-rLZ", "x", image, "/"}, {"diff", "--name-only", "-z", image, "oci:" + plain}} {
		if out := s.run(args...).stdout; !strings.Contains(out, "/"+file) {
			t.Errorf("imgfs %q in a pipe has not the name as it is:\n%q", args, out)
		}
	}
}

// longOutputs are commands whose output for the image of longImage no pipe holds.
func longOutputs(image, other string) [][]string {
	return [][]string{
		{"find", image}, {"find", "--json", image}, {"find", image, "-ls"}, {"tree", image}, {"tree", "--json", image}, {"du", "-a", image}, {"du", "-a", "--json", image}, {"sum", "-r", image}, {"sum", "-r", "--json", image},
		{"grep", "-rc", "x", image, "/"}, {"grep", "-rc", "--json", "x", image, "/"}, {"diff", image, other}, {"diff", "--json", image, other}, {"diff", "--stat", image, other}, {"tar", image}, {"ls", "-R", image}, {"ls", "-R", "--json", image}, {"ls", "-lR", image},
	}
}

// longImage writes an image of many files and another of few, and makes their indexes.
func longImage(s *sandbox) (image, other string) {
	s.t.Helper()
	many, few := filepath.Join(s.dir, "many"), filepath.Join(s.dir, "few")
	if _, err := labimage.Write(many, labimage.Many(1, 20_000)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := labimage.Write(few, small); err != nil {
		s.t.Fatal(err)
	}
	s.ok("index", "oci:"+many)
	s.ok("index", "oci:"+few)
	return "oci:" + many, "oci:" + few
}

// startPiped starts a command whose output goes to a pipe of which one byte is read, and
// returns the pipe.
func startPiped(t *testing.T, cmd *exec.Cmd) (out *os.File, stderr *bytes.Buffer) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() }) // it may be closed by now
	stderr = new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = w, stderr
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatalf("imgfs %q printed nothing: %v\n%s", cmd.Args[1:], err, stderr)
	}
	return r, stderr
}

// TestPipeEnds has readers that have seen enough, as head -1: the commands end as those of
// coreutils do, and say nothing.
func TestPipeEnds(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	image, other := longImage(s)
	ended := func(cmd *exec.Cmd, stderr *bytes.Buffer) {
		t.Helper()
		begun := time.Now()
		_ = cmd.Wait() // how it ended is looked at
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != syscall.SIGPIPE || stderr.Len() > 0 {
			t.Errorf("imgfs %q: got %v, want SIGPIPE, and on stderr\n%s", cmd.Args[1:], cmd.ProcessState, stderr)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("imgfs %q ended after %v", cmd.Args[1:], took)
		}
	}
	for _, args := range longOutputs(image, other) {
		cmd := s.command(args...)
		out, stderr := startPiped(t, cmd)
		out.Close()
		ended(cmd, stderr)
	}
	// Nobody has ever read.
	for _, args := range append(longOutputs(image, other), []string{"history", image}, []string{"history", "--json", image}, []string{"du", "-s", image}, []string{"du", "--layers", image}, []string{"stat", image, "/usr"}, []string{"cp", image + ":/etc/os-release", "-"}) {
		if args[0] == "cp" {
			args[1] = other + ":/etc/os-release"
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		cmd, stderr := s.command(args...), new(bytes.Buffer)
		cmd.Stdout, cmd.Stderr = w, stderr
		err = cmd.Start()
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		ended(cmd, stderr)
	}
}

// TestInterruptedPrinting has commands interrupted while nobody takes what they print.
func TestInterruptedPrinting(t *testing.T) {
	testenv.Slow(t)
	s := newSandbox(t)
	image, other := longImage(s)
	for _, args := range longOutputs(image, other) {
		cmd := s.command(args...)
		_, stderr := startPiped(t, cmd)
		begun := time.Now()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // how it ended is looked at
		took := time.Since(begun)
		t.Logf("imgfs %q: %v", args, took)
		if took > 5*time.Second { // one second where nobody else is busy
			t.Errorf("imgfs %q ended %v after Ctrl-C", args, took)
		}
		code := cli.ExitFailure
		if args[0] == "diff" || args[0] == "grep" {
			code = exitTrouble
		}
		if got := cmd.ProcessState.ExitCode(); got != code || strings.Count(stderr.String(), "interrupted") != 1 {
			t.Errorf("imgfs %q: got %v, want exit code %d, and\n%s", args, cmd.ProcessState, code, stderr)
		}
	}
}
