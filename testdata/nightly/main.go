// Command nightly runs the long checks, one after the other, and prints one table of
// them at the end: what each covers, its result, its figures and its time.
//
//	go run ./testdata/nightly                     # all; make nightly
//	go run ./testdata/nightly -only 'load|soak'   # those whose names match
//	go run ./testdata/nightly -list
//
// A step has a budget of time, and all of them together a reserve, to which goes what
// others leave of theirs, so that a slow machine has the time it needs where it needs it.
// A step that is not done by then is ended and has failed. One that fails, or that is
// skipped, is named as that, and the exit code is 1 if any failed. What failing tests
// printed is on stdout, what all printed in the file -log.
//
// A test gives the table a figure by a line "figure: NAME VALUE UNIT" in its log.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nightly:", err)
		os.Exit(1)
	}
}

// errFailed: a step has failed. The table says which.
var errFailed = errors.New("a check failed")

// run is the program. It prints to stdout.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("nightly", flag.ContinueOnError)
	only := flags.String("only", "", "run the steps whose names match this regular expression")
	list := flags.Bool("list", false, "print the steps and their budgets")
	log := flags.String("log", filepath.Join("bin", "nightly.log"), "write all output to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	var chosen []*step
	for _, s := range steps {
		if pattern.MatchString(s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("no step matches %q", *only)
	}
	if *list {
		for _, s := range chosen {
			fmt.Fprintf(stdout, "%-20s %6s  %s\n", s.name, s.budget, s.covers)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(*log), 0o755); err != nil {
		return err
	}
	file, err := os.Create(*log)
	if err != nil {
		return err
	}
	defer file.Close()
	return runAll(ctx, chosen, reserve, stdout, file)
}

// runAll runs steps and prints their table. All of them together may take so much longer
// than their budgets.
func runAll(ctx context.Context, chosen []*step, reserve time.Duration, stdout, log io.Writer) error {
	begun, load := time.Now(), loadAverage()
	var results []*result
	failed := false
	for i, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		limit := s.budget + max(0, reserve)
		fmt.Fprintf(stdout, "%s %d/%d %s: at most %s\n", time.Now().Format(time.TimeOnly), i+1, len(chosen), s.name, limit.Round(time.Second))
		r := s.run(ctx, limit, log)
		reserve += s.budget - r.took
		failed = failed || r.failed
		fmt.Fprintf(stdout, "%s %s after %s\n", s.name, r.verdict(), r.took.Round(time.Second))
		if r.failed {
			fmt.Fprintf(stdout, "%s\n", r.printed)
		}
		results = append(results, r)
	}
	fmt.Fprintf(stdout, "\n%s\n", machine(begun, load))
	writeTable(stdout, results, time.Since(begun))
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("it was interrupted: %d of %d steps were run", len(results), len(chosen))
	case failed:
		return errFailed
	}
	return nil
}
