package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"
)

// A unitName is a service of a service manager.
type unitName struct {
	name string
	user bool // of a user's manager
}

// ownUnit returns the unit that this process is of.
func ownUnit() (unitName, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return unitName{}, err
	}
	return unitOf(string(text))
}

// unitOf finds the unit in a text of /proc/PID/cgroup: systemd names cgroups after units.
func unitOf(text string) (unitName, error) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) < 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		if name := path.Base(f[2]); strings.HasSuffix(name, ".service") {
			return unitName{name, strings.Contains(path.Dir(f[2]), "/user@")}, nil
		}
	}
	return unitName{}, errors.New("its cgroup is not that of a unit")
}

// askLimit is how long the service manager may take to answer.
const askLimit = 2 * time.Second

// ask asks the service manager, by systemctl: its own protocol is D-Bus.
func (u unitName) ask(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if u.user {
		args = append([]string{"--user"}, args...)
	}
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.Dir = "/"
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("systemctl: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}

// show returns properties of the unit.
func (u unitName) show(ctx context.Context, names ...string) (map[string]string, error) {
	text, err := u.ask(ctx, "show", "--property="+strings.Join(names, ","), "--", u.name)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		values[name] = value
	}
	return values, nil
}

// restarting reports whether the service manager stops the unit in order to start it
// again. The process is told of both with the same signal.
func (u unitName) restarting(ctx context.Context) bool {
	text, err := u.ask(ctx, "list-jobs", "--no-legend", "--plain")
	return err == nil && hasRestart(text, u.name)
}

// hasRestart finds a restart of a unit in a list of jobs: number, unit, type and state in a
// line.
func hasRestart(jobs, unit string) bool {
	for line := range strings.Lines(jobs) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == unit && f[2] == "restart" {
			return true
		}
	}
	return false
}
