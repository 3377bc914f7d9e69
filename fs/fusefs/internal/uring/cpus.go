//go:build linux

package uring

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxCPUs is more than any kernel can be built for.
const maxCPUs = 1 << 16

// possibleCPUs returns how many processors there can ever be. Their numbers
// need not be below that, but nothing else is known to work.
func possibleCPUs() (int, error) {
	const name = "/sys/devices/system/cpu/possible"
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	n, err := countCPUs(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

// countCPUs counts the processors of a list such as "0-3,6".
func countCPUs(list string) (int, error) {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 32)
		to, err2 := strconv.ParseUint(last, 10, 32)
		if err != nil || err2 != nil || to < from || to >= maxCPUs {
			return 0, fmt.Errorf("%q is not a list of processors", list)
		}
		n += int(to - from + 1)
	}
	return n, nil
}

// usableCPUs returns which of the processors below n this process may run on
// now: at least one.
func usableCPUs(n int) []int {
	var set unix.CPUSet
	var cpus []int
	if unix.SchedGetaffinity(0, &set) == nil {
		for c := range n {
			if set.IsSet(c) {
				cpus = append(cpus, c)
			}
		}
	}
	if cpus == nil {
		cpus = []int{0}
	}
	return cpus
}

// pin keeps the calling thread on a processor, if that is possible. The caller
// of a request sleeps meanwhile, so that neither has to wake another processor:
// without it a walk of a large tree takes twice as long, no less than through
// the device.
func pin(cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	_ = unix.SchedSetaffinity(0, &set)
}
