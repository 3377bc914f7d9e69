package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestVariables(t *testing.T) {
	environ := []string{"A=1", "AB=2", "B=3", "A=4=5"}
	for _, test := range []struct{ values, want string }{
		{"", "[]"},
		{"X=1", `["X=1"]`},
		{"X=", `["X="]`},
		{"A", `["A=1" "A=4=5"]`},
		{"A*", `["A=1" "AB=2" "A=4=5"]`},
		{"*", `["A=1" "AB=2" "B=3" "A=4=5"]`},
		{"NONE X=1", `["X=1"]`},
		{"=1", "-e =1: the variable has no name"},
	} {
		got, err := variables(strings.Fields(test.values), environ)
		text := fmt.Sprintf("%q", got)
		if err != nil {
			text = err.Error()
		}
		if text != test.want {
			t.Errorf("%q: got %s, want %s", test.values, text, test.want)
		}
	}
}

func TestEntrypointWords(t *testing.T) {
	for value, want := range map[string]string{
		"":              `[""]`,
		"sh":            `["sh"]`,
		"sh -c":         `["sh -c"]`,
		`["sh", "-c"]`:  `["sh" "-c"]`,
		`[]`:            `[]`,
		`["sh"`:         `["[\"sh\""]`,
		`["sh", 1]`:     `["[\"sh\", 1]"]`,
		`null`:          `["null"]`,
		"[":             `["["]`,
		`"sh"`:          `["\"sh\""]`,
		`["a"] trailer`: `["[\"a\"] trailer"]`,
	} {
		if got := fmt.Sprintf("%q", entrypointWords(value)); got != want {
			t.Errorf("%s: got %s, want %s", value, got, want)
		}
	}
}

func TestVolume(t *testing.T) {
	dir := t.TempDir()
	for value, want := range map[string]string{
		dir + ":/in":            dir + " /in rbind,rprivate,nosuid,nodev",
		dir + "/.:/in/../x/:ro": dir + " /x rbind,rprivate,nosuid,nodev,ro",
		dir + ":/in:rw,z":       dir + " /in rbind,rprivate,nosuid,nodev,rw",
		dir + ":/in:suid":       "-v " + dir + ":/in:suid: suid is none of ro, rw, exec, noexec",
		dir + ":/":              "-v " + dir + ":/: / is no absolute path below /",
		dir + ":in":             "-v " + dir + ":in: in is no absolute path below /",
		dir:                     "-v " + dir + ": a path here and one in the container are needed",
		":/in":                  "-v :/in: a path here and one in the container are needed",
		"name:/in":              "-v name:/in: imgfs keeps no volumes, and a path has a slash",
		dir + "/none:/in":       "stat " + dir + "/none: no such file or directory",
	} {
		m, err := volume(value)
		got := fmt.Sprint(err)
		if err == nil {
			got = m.Source + " " + m.Destination + " " + strings.Join(m.Options, ",")
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", value, got, want)
		}
	}
}

func TestRawCommand(t *testing.T) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	newContainerFlags(f)
	for _, test := range []struct{ args, want string }{
		{"image", "image |"},
		{"image sh -c -e", "image | sh -c -e"},
		{"-e A=1 -tu bob image -e x", "-e A=1 -tu bob image | -e x"},
		{"-tubob image sh", "-tubob image | sh"},
		{"--user bob --tty image sh", "--user bob --tty image | sh"},
		{"--user=bob image sh", "--user=bob image | sh"},
		{"image -- sh", "image | sh"},
		{"-- image -- sh", "-- image | -- sh"},
		{"- sh", "- | sh"},
		{"-e", "-e |"},
		{"--unknown image sh", "--unknown image | sh"},
		{"", "|"},
	} {
		flags, raw, err := rawCommand(1)(f, strings.Fields(test.args))
		if got := strings.TrimSpace(strings.Join(flags, " ") + " | " + strings.Join(raw, " ")); got != test.want || err != nil {
			t.Errorf("%s: got %s, want %s (%v)", test.args, got, test.want, err)
		}
	}
}
