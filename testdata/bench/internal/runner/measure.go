package runner

import (
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// A Sample is the time that one run of a task took.
type Sample struct {
	CPU  time.Duration // in user and system mode
	Wall time.Duration
}

// A Task is something that is measured.
type Task struct {
	Name string
	Who  int // whose CPU time: syscall.RUSAGE_SELF or RUSAGE_CHILDREN
	Run  func() error
	// Before is called before each run and is not measured; nil is nothing.
	Before func() error
}

// measure runs a task once.
func (t *Task) measure() (Sample, error) {
	if t.Before != nil {
		if err := t.Before(); err != nil {
			return Sample{}, fmt.Errorf("before %s: %w", t.Name, err)
		}
	}
	runtime.GC() // the garbage of other tasks is not this one's to collect
	before, err := cpuTime(t.Who)
	if err != nil {
		return Sample{}, err
	}
	begun := time.Now()
	if err := t.Run(); err != nil {
		return Sample{}, fmt.Errorf("%s: %w", t.Name, err)
	}
	wall := time.Since(begun)
	after, err := cpuTime(t.Who)
	return Sample{after - before, wall}, err
}

// cpuTime returns the CPU time used so far.
func cpuTime(who int) (time.Duration, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), nil
}

// InTurns runs every task once a round. Each round begins with another task, so
// that other load of the machine hits all of them alike. It returns the median
// of each task.
func (r *Runner) InTurns(runs int, tasks []Task) ([]Sample, error) {
	cpu, wall := make([][]time.Duration, len(tasks)), make([][]time.Duration, len(tasks))
	for run := range runs {
		for k := range tasks {
			if err := r.Ctx.Err(); err != nil {
				return nil, err
			}
			i := (k + run) % len(tasks)
			s, err := tasks[i].measure()
			if err != nil {
				return nil, err
			}
			cpu[i], wall[i] = append(cpu[i], s.CPU), append(wall[i], s.Wall)
		}
	}
	medians := make([]Sample, len(tasks))
	for i := range tasks {
		medians[i] = Sample{figures.Median(cpu[i]), figures.Median(wall[i])}
	}
	return medians, nil
}
