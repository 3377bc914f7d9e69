// Package figures is the report of the bench: figures, tables, and the machine
// that they come from.
package figures

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"time"
)

// A Machine is where figures come from.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Go     string `json:"go"`
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel"`
	Date   string `json:"date"`
	Load   string `json:"load"` // averages of 1, 5 and 15 minutes
}

// ThisMachine describes the machine that the program runs on, now.
func ThisMachine() Machine {
	m := Machine{
		CPU: "unknown CPU", Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Kernel: "unknown", Date: time.Now().UTC().Format(time.DateOnly), Load: "unknown",
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	return m
}

// String describes the machine in a line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s, %s/%s, Linux %s, %s, load average before %s", m.CPU, m.Cores, m.Go, m.OS, m.Arch, m.Kernel, m.Date, m.Load)
}

// Number writes a value and its unit with three digits that count, of which at
// most five are decimals, and whole numbers as they are.
func Number(v float64, unit string) string {
	digits := 0
	if v != 0 && v != math.Trunc(v) {
		digits = max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", min(digits, 5), v, unit))
}

// Megabytes writes a number of bytes in MB.
func Megabytes(n int64) string { return Number(float64(n)/1e6, "MB") }

// WriteHead writes the first row of a Markdown table, and the line below it.
func WriteHead(s *strings.Builder, cells ...string) {
	WriteRow(s, cells...)
	s.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
}

// WriteRow writes a row of a Markdown table.
func WriteRow(s *strings.Builder, cells ...string) {
	fmt.Fprintf(s, "| %s |\n", strings.Join(cells, " | "))
}
