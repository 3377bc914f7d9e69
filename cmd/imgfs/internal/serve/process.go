package serve

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/holder"
)

// A process is what /proc tells of one.
type process struct {
	memory  int64 // resident, in bytes
	stopped bool
}

// lookAt looks at a process, and reports whether there is one.
func lookAt(pid int) (p process, ok bool) {
	if pid <= 0 {
		return p, false
	}
	dir := fmt.Sprintf("/proc/%d", pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, false
	}
	// proc_pid_stat(5): the name in parentheses may have any in it, and the state
	// follows.
	if i := strings.LastIndexByte(string(stat), ')'); i >= 0 && i+2 < len(stat) {
		p.stopped = stat[i+2] == 'T' || stat[i+2] == 't'
	}
	if statm, err := os.ReadFile(dir + "/statm"); err == nil {
		if f := strings.Fields(string(statm)); len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64) // 0 is not known
			p.memory = pages * int64(os.Getpagesize())
		}
	}
	return p, true
}

// Stopped reports whether a process is stopped, by SIGSTOP or a debugger.
func Stopped(pid int) bool {
	p, ok := lookAt(pid)
	return ok && p.stopped
}

// argsOf returns the command line of a process.
func argsOf(proc string) []string {
	text, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// serverByName returns the process whose command line says that it mounts the image of
// a mount on its directory; 0 if there is none. Anybody can give their process such
// words: it is for people to see.
func serverByName(r *Running) int {
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0 // the pattern is right
	}
	for _, proc := range procs {
		args := argsOf(proc)
		if n := len(args); n < 3 || args[1] == holder.Command || args[n-1] != r.Dir || !slices.Contains(args[1:n-1], "mount") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(proc)); err == nil {
			return pid
		}
	}
	return 0
}
