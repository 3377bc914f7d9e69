package index

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// A sample is what one run of something took.
type sample struct {
	cpu  time.Duration // in user and system mode
	user time.Duration // the part of cpu in user mode
	wall time.Duration
}

// A task is something that is measured.
type task struct {
	name string
	who  int // whose CPU time: syscall.RUSAGE_SELF or RUSAGE_CHILDREN
	run  func() error
}

// measure runs a task once.
func (t *task) measure() (sample, error) {
	runtime.GC() // what was left by others is not this task's to clear
	before, err := used(t.who)
	if err != nil {
		return sample{}, err
	}
	begun := time.Now()
	if err := t.run(); err != nil {
		return sample{}, fmt.Errorf("%s: %w", t.name, err)
	}
	wall := time.Since(begun)
	after, err := used(t.who)
	return sample{after.cpu - before.cpu, after.user - before.user, wall}, err
}

// used returns the CPU time used so far, without the wall time.
func used(who int) (sample, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		return sample{}, fmt.Errorf("getrusage: %w", err)
	}
	user := time.Duration(r.Utime.Nano())
	return sample{cpu: user + time.Duration(r.Stime.Nano()), user: user}, nil
}

// inTurns runs every task once a round, so that what else the machine does
// hits all alike, and returns the median of each.
func inTurns(ctx context.Context, runs int, tasks []task) ([]sample, error) {
	all := make([][]sample, len(tasks))
	for range runs {
		for i := range tasks {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			s, err := tasks[i].measure()
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], s)
		}
	}
	medians := make([]sample, len(tasks))
	for i, samples := range all {
		medians[i] = sample{
			cpu:  median(samples, func(s sample) time.Duration { return s.cpu }),
			user: median(samples, func(s sample) time.Duration { return s.user }),
			wall: median(samples, func(s sample) time.Duration { return s.wall }),
		}
	}
	return medians, nil
}

// median returns the median of what of gives for each of some samples.
func median[S any, V int64 | float64 | time.Duration](samples []S, of func(S) V) V {
	values := make([]V, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
