package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	for _, args := range []string{
		"other", "index -only nothing", "index -only walk", "-runs -1", "-mbps 0", "x y", "net fuse x y", "-also x", "-unknown", "load x",
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(args), strings.NewReader(""), &stdout, &stderr)
		if want := 2; args != "other" && (code != want || stderr.Len() == 0) || code == 0 || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, want %d\n%s", args, code, want, &stderr)
		}
	}
}

func TestParse(t *testing.T) {
	p, err := parse([]string{"net", "index", "-only", "cold/go", "-runs", "2", "bin/x"}, t.Output())
	if err != nil || !slices.Equal(p.groups, []string{"net", "index"}) || p.Only != "cold/go" || p.Runs != 2 || p.Imgfs != "bin/x" {
		t.Errorf("got %+v and error %v", p, err)
	}
	p, err = parse(nil, t.Output())
	if err != nil || !slices.Equal(p.groups, groupNames) || p.Imgfs != "bin/imgfs" || p.net.Mbps != 100 {
		t.Errorf("got %+v and error %v", p, err)
	}
}
