//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/labimage"
)

// dpkgStatus is the status file of this machine, or one of as many packages as a small
// system has.
func dpkgStatus() string {
	if own, err := os.ReadFile("/var/lib/dpkg/status"); err == nil && len(own) > 0 {
		return string(own)
	}
	var b strings.Builder
	for i := range 120 {
		fmt.Fprintf(&b, "Package: lib%d\nStatus: install ok installed\nMaintainer: x <x@example.org>\nArchitecture: amd64\nVersion: 1:%d.0-1\nDescription: x\n\n", i, i)
	}
	return b.String()
}

// changedStatus is a status file after packages were removed, with and without their
// configuration, upgraded, downgraded and added.
func changedStatus(status string) string {
	edit := func(s, field string, to func(value string) string) string {
		lines := strings.SplitAfter(s, "\n")
		for i, line := range lines {
			if value, ok := strings.CutPrefix(line, field+": "); ok {
				lines[i] = field + ": " + to(strings.TrimSpace(value)) + "\n"
			}
		}
		return strings.Join(lines, "")
	}
	var stanzas []string
	for i, s := range strings.SplitAfter(status, "\n\n") {
		switch i % 12 {
		case 0: // as after dpkg --purge
			continue
		case 1: // as after dpkg --remove
			s = edit(s, "Status", func(string) string { return "deinstall ok config-files" })
		case 2:
			s = edit(s, "Version", func(v string) string { return v + "+new1" })
		case 3:
			s = edit(s, "Version", func(v string) string { return v + "~old1" })
		case 4: // its files are there all the same
			s = edit(s, "Status", func(string) string { return "install ok unpacked" })
		case 5:
			s = edit(s, "Package", func(p string) string { return "new-" + p })
		}
		stanzas = append(stanzas, s)
	}
	slices.Reverse(stanzas) // an order means nothing
	for i, s := range stanzas {
		stanzas[i] = strings.TrimSpace(s) + "\n\n"
	}
	return strings.Join(stanzas, "")
}

// dpkgQuery returns the versions that dpkg-query has of what is installed, by name and
// architecture.
func dpkgQuery(t *testing.T, status string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "status"), status)
	out, err := exec.CommandContext(t.Context(), "dpkg-query", "--admindir="+dir, "-W", "-f", "${db:Status-Status} ${Package}/${Architecture} ${Version}\n").Output()
	if err != nil {
		t.Fatalf("dpkg-query: %v", err)
	}
	all := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if len(words) == 3 && !slices.Contains([]string{"not-installed", "config-files", "half-installed"}, words[0]) {
			all[words[1]] = words[2]
		}
	}
	return all
}

// TestDiffPackagesDpkg holds diff --packages of two images against what dpkg-query lists of
// their status files.
func TestDiffPackagesDpkg(t *testing.T) {
	need(t, "dpkg-query", "dpkg")
	alone(t)
	before := dpkgStatus()
	after := changedStatus(before)
	layer := func(status string) labimage.Layer {
		return func(a *labimage.Archive) error { return a.File("var/lib/dpkg/status", status) }
	}
	a, b := twoImages(t, layer(before), layer(after))

	old, new := dpkgQuery(t, before), dpkgQuery(t, after)
	asked := 0
	direction := func(from, to string) string {
		guess := "upgraded"
		if strings.Contains(to, "~old1") {
			guess = "downgraded"
		}
		if asked++; asked > 40 {
			return guess // as dpkg has said of 40
		}
		op := map[string]string{"upgraded": "lt", "downgraded": "gt"}[guess]
		tool(t, "dpkg", "--compare-versions", from, op, to)
		return guess
	}
	var want []string
	for p, version := range old {
		switch now, ok := new[p]; {
		case !ok:
			want = append(want, fmt.Sprintf("removed %s %s -> ", p, version))
		case now != version:
			want = append(want, fmt.Sprintf("%s %s %s -> %s", direction(version, now), p, version, now))
		}
	}
	for p, version := range new {
		if _, ok := old[p]; !ok {
			want = append(want, fmt.Sprintf("added %s  -> %s", p, version))
		}
	}

	r := invoke(t, "diff", "-q", "--packages", "--json", a, b)
	var changes []struct{ Manager, Change, Name, Arch, OldArch, Old, New string }
	if err := json.Unmarshal([]byte(r.stdout), &changes); err != nil || r.code != exitDifferent || r.stderr != "" {
		t.Fatalf("exit code %d, %v: %s", r.code, err, r.stderr)
	}
	var got []string
	kinds := make(map[string]int)
	for _, c := range changes {
		kinds[c.Change]++
		got = append(got, fmt.Sprintf("%s %s/%s %s -> %s", c.Change, c.Name, c.Arch, c.Old, c.New))
		if c.Manager != "dpkg" || c.OldArch != "" {
			t.Errorf("got %+v", c)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(kinds) != 4 {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	t.Logf("%d packages, then %d: %v", len(old), len(new), kinds)

	// The table has a line for each of them, below that of dpkg.
	r = invoke(t, "diff", "-q", "--packages", a, b)
	if lines := strings.Count(r.stdout, "\n"); r.code != exitDifferent || lines != len(want)+1 || !strings.HasPrefix(r.stdout, "dpkg:\n") {
		t.Errorf("exit code %d, %d lines: %s%s", r.code, lines, r.stdout, r.stderr)
	}
}
