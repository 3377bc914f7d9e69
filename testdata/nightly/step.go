package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A step is one line of the table: a run of go test, or of another command.
type step struct {
	name   string
	covers string
	// budget is about how long it takes. It may take longer by what there is in reserve.
	budget time.Duration
	// setup are the packages of Debian that it needs beside those of make test.
	setup []string
	env   []string

	// tests are arguments of go test beside those that all have.
	tests []string
	// command is run where there are no tests. Its figures are read as those of tests.
	command []string
}

// grace is how long before the end of its time go test itself is to end a test, with the
// stacks of its goroutines.
const grace = 15 * time.Second

// printedMost is how much of the output of failing tests is kept for stdout.
const printedMost = 256 << 10

// argv is the command line of a run within a limit.
func (s *step) argv(limit time.Duration) []string {
	if s.tests == nil {
		return s.command
	}
	return append([]string{"go", "test", "-count=1", "-json", "-timeout=" + max(limit-grace, grace).Round(time.Second).String()}, s.tests...)
}

// run runs the step, for as long as limit, and copies what it prints to log.
func (s *step) run(ctx context.Context, limit time.Duration, log io.Writer) *result {
	begun := time.Now()
	r := &result{step: s}
	defer func() { r.took = time.Since(begun) }()
	if len(s.setup) > 0 {
		// What cannot be installed is missed by the tests, which say so.
		setup := exec.CommandContext(ctx, ".ci/setup", s.setup...)
		setup.Stdout, setup.Stderr = log, log
		if err := setup.Run(); err != nil {
			fmt.Fprintln(log, "setup:", err)
		}
	}
	argv := s.argv(limit)
	fmt.Fprintf(log, "\n=== %s: %s %s\n", s.name, strings.Join(s.env, " "), strings.Join(argv, " "))
	place, err := newPlace()
	if err != nil {
		r.fail("%v", err)
		return r
	}
	defer func() {
		for _, left := range place.clear() {
			r.fail("it left %s", left)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(append(os.Environ(), "TMPDIR="+place.dir), s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	p := &parser{result: r, log: log, json: s.tests != nil, output: map[string][]byte{}}
	cmd.Stdout, cmd.Stderr = p, p
	err = cmd.Run()
	p.end()
	r.judge(ctx, limit, err)
	return r
}

// judge decides what the end of a run within a limit means.
func (r *result) judge(ctx context.Context, limit time.Duration, err error) {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.fail("it was not done within %s", limit.Round(time.Second))
	case ctx.Err() != nil:
		r.fail("it was interrupted")
	case err != nil && !r.failed:
		r.fail("%v", err)
	case err == nil && r.step.tests != nil && r.passed == 0 && len(r.skipped) == 0:
		r.fail("no test was run")
	}
}

// A parser reads what a step prints, line by line.
type parser struct {
	*result
	log  io.Writer
	json bool

	mu     sync.Mutex // stdout and stderr may be written at once
	rest   []byte
	output map[string][]byte // of tests that run, by package and name
	tail   []byte            // the last lines of what is no test's
}

// Write implements io.Writer.
func (p *parser) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, b...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		p.line(line)
		p.rest = slices.Clone(rest)
	}
}

// end takes what is left, and shows it where the step failed outside of its tests.
func (p *parser) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rest) > 0 {
		p.line(p.rest)
	}
	// Of a test that never ended its output is all there is.
	for _, name := range slices.Sorted(maps.Keys(p.output)) {
		p.keep(p.output[name])
	}
	p.keep(p.tail)
}

// line takes one line, of go test -json or of a program.
func (p *parser) line(line []byte) {
	e, ok := parseEvent(line)
	if !p.json || !ok {
		fmt.Fprintf(p.log, "%s\n", line)
		p.figure(string(line))
		p.tail = last(append(append(p.tail, line...), '\n'))
		return
	}
	name := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		_, _ = io.WriteString(p.log, e.Output) // its end is not the step's business
		p.figure(strings.TrimSuffix(e.Output, "\n"))
		if e.Test == "" {
			p.tail = last(append(p.tail, e.Output...))
			return
		}
		p.output[name] = last(append(p.output[name], e.Output...))
	case "pass":
		if e.Test != "" {
			p.passed++
		}
		delete(p.output, name)
	case "skip":
		if e.Test != "" {
			p.skipped = append(p.skipped, skip{e.Test, reason(p.output[name])})
		}
		delete(p.output, name)
	case "fail", "build-fail":
		if e.Test != "" {
			p.fail("%s", e.Test)
			p.keep(p.output[name])
		} else {
			p.fail("")
		}
		delete(p.output, name)
	}
}

// last returns the end of what would take too much.
func last(b []byte) []byte {
	const most = 64 << 10
	if len(b) <= 2*most {
		return b
	}
	return slices.Clone(b[len(b)-most:])
}

// reason returns what a skipped test said, in one line.
func reason(output []byte) string {
	text := ""
	lines := bufio.NewScanner(bytes.NewReader(output))
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			text = line
		}
	}
	if _, said, ok := strings.Cut(text, ".go:"); ok {
		if _, said, ok := strings.Cut(said, ": "); ok {
			return said
		}
	}
	return text
}
