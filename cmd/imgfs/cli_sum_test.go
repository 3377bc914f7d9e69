//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/sum"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// sum runs imgfs sum of a tree's image.
func (r *realTree) sum(t *testing.T, flags string, paths ...string) result {
	t.Helper()
	return invoke(t, append(append([]string{"sum", r.cache}, strings.Fields(flags)...), append([]string{"--", r.image}, paths...)...)...)
}

// TestSumIsSha256sum compares imgfs sum with sha256sum(1), byte for byte, by the index
// and by reading.
func TestSumIsSha256sum(t *testing.T) {
	testenv.Slow(t)
	alone(t)
	need(t, "sha256sum", "sh")
	r := newTextTree(t)
	succeed(t, "index", r.cache, r.image)
	odd, err := filepath.Glob(filepath.Join(r.dir, "odd", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range odd {
		odd[i] = strings.TrimPrefix(odd[i], r.dir+"/")
	}
	for _, flags := range []string{"", "--tag", "-z", "-b", "-b -z", "--tag -z", "-t"} {
		for _, read := range []string{"", " --read"} {
			for name, paths := range map[string][]string{
				"odd": odd, "two": {"etc/passwd", "text/hard"}, "linked": {"link-file", "link-dir/passwd", "text/up/passwd"}, "sparse": {"binary/sparse"}, "empty": {"text/empty"},
				"failing": {"etc/passwd", "etc", "nowhere", "etc/loop", "etc/dangling", "text/one"}, "through": {"./text//one", "etc/../text/one"},
			} {
				t.Run(flags+read+" "+name, func(t *testing.T) {
					want := inTree(t, r.dir, nil, "sha256sum", append(append(strings.Fields(flags), "--"), paths...)...)
					got := r.sum(t, flags+read, paths...)
					if got.stdout != want.stdout || got.code != want.code {
						t.Errorf("got exit code %d\n%q\nwant %d\n%q\nstderr\n%s%s", got.code, got.stdout, want.code, want.stdout, got.stderr, want.stderr)
					}
					lines := strings.Count(want.stderr, "\n")
					if n := strings.Count(got.stderr, "\n"); n != lines {
						t.Errorf("got %d lines on stderr, want %d:\n%s%s", n, lines, got.stderr, want.stderr)
					}
				})
			}
		}
	}
	for _, path := range []string{"etc", "odd", ".", "odd/"} {
		script := `find "$1" -type f -print0 | sort -z | xargs -0 sha256sum --`
		if path == "odd/" {
			script = `find odd -type f -print0 | sort -z | xargs -0 sha256sum --`
		}
		want := inTree(t, r.dir, nil, "sh", "-c", script, "sh", path)
		if got := r.sum(t, "-r", path); got.stdout != want.stdout || got.code != 0 {
			t.Errorf("-r %s: got exit code %d\n%s%s\nwant\n%s", path, got.code, got.stdout, got.stderr, want.stdout)
		}
	}
}

// TestSumCheck has sha256sum check what imgfs prints, and imgfs what sha256sum prints.
func TestSumCheck(t *testing.T) {
	alone(t)
	need(t, "sha256sum", "sh")
	r := newTextTree(t)
	for _, flags := range []string{"-r", "-r --read", "-r --tag", "-r -b"} {
		list := writeFile(t, filepath.Join(t.TempDir(), "sums"), r.sum(t, flags, ".").stdout)
		if c := inTree(t, r.dir, nil, "sha256sum", "--quiet", "-c", list); c.code != 0 || c.stdout+c.stderr != "" {
			t.Errorf("sha256sum -c of imgfs sum %s: exit code %d\n%s%s", flags, c.code, c.stdout, c.stderr)
		}
	}
	good := inTree(t, r.dir, nil, "sh", "-c", "find . -type f -print0 | sort -z | xargs -0 sha256sum").stdout
	zeros := strings.Repeat("0", 64)
	bad := good + "no sum\n\n# a comment\n" + zeros + "  text/one\n" + zeros + "  nowhere\n" + zeros + "  etc\n" + strings.ToUpper(good[:64]) + good[64:strings.Index(good, "\n")] + "\n\\" + zeros + "  wrong\\escape\n SHA256 (text/one) = " + zeros + "\n"
	for name, text := range map[string]string{"good": good, "bad": bad, "nothing": "no sum\n", "empty": "", "missing": zeros + "  nowhere\n"} {
		list := writeFile(t, filepath.Join(t.TempDir(), "sums"), text)
		for _, flags := range []string{"", "--quiet", "--status", "--ignore-missing", "--strict", "--warn", "--ignore-missing --strict"} {
			want := inTree(t, r.dir, nil, "sha256sum", append(strings.Fields(flags), "-c", list)...)
			got := r.sum(t, flags+" -c "+list)
			if got.stdout != want.stdout || got.code != want.code {
				t.Errorf("%s %s: got exit code %d\n%s%s\nwant %d\n%s%s", name, flags, got.code, got.stdout, got.stderr, want.code, want.stdout, want.stderr)
			}
		}
	}
	list := writeFile(t, filepath.Join(t.TempDir(), "sums"), inTree(t, filepath.Join(r.dir, "etc"), nil, "sha256sum", "passwd", "conf.d/a.conf").stdout)
	if got := r.sum(t, "-c "+list, "etc"); got.code != 0 || got.stdout != "passwd: OK\nconf.d/a.conf: OK\n" {
		t.Errorf("in a directory: exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	changed := writeFile(t, filepath.Join(t.TempDir(), "sums"), zeros+"  etc/passwd\n")
	var rows []sum.Row
	got := r.sum(t, "--json -c "+changed)
	if err := show.Unmarshal([]byte(got.stdout), &rows); err != nil || len(rows) != 1 || rows[0].Status != "differs" || rows[0].Path != "/etc/passwd" || got.code != 1 {
		t.Errorf("--json: exit code %d, error %v\n%s", got.code, err, got.stdout)
	}
	long := writeFile(t, filepath.Join(t.TempDir(), "sums"), strings.Repeat("x", 1<<20))
	checkRefusal(t, r.sum(t, "-c "+long), cli.ExitFailure, []string{"line 1 has more than 65536 bytes"}, "")
}

func TestSumRefuses(t *testing.T) {
	alone(t)
	r := newTextTree(t)
	for flags, says := range map[string]string{
		"-a md5": "sha256 alone", "--strict": "--check alone", "-c x --tag": "--tag has no meaning", "": "no path in the image", "--check=": "empty",
	} {
		checkRefusal(t, r.sum(t, flags), cli.ExitUsage, []string{says}, "imgfs help sum")
	}
	checkRefusal(t, r.sum(t, "-c /no/where"), cli.ExitFailure, []string{"/no/where: no such file"}, "")
	checkRefusal(t, r.sum(t, "", "etc"), cli.ExitFailure, []string{"etc: is a directory"}, "")
	checkRefusal(t, r.sum(t, "", "etc/fifo"), cli.ExitFailure, []string{"not a regular file"}, "")
}

// TestUsageFetchesNothing counts what comes over the network for du and sum of an image
// whose indexes are there.
func TestUsageFetchesNothing(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	cache := "--cache-dir=" + t.TempDir()
	succeed(t, "index", cache, image)
	// The layer itself is not in the cache any more.
	dir := strings.TrimPrefix(cache, "--cache-dir=")
	if err := os.RemoveAll(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	before := reg.Bytes(registrytest.Blob, registrytest.CDN)
	for _, args := range [][]string{{"du", "-a"}, {"sum", "-r"}} {
		if out := succeed(t, slices.Concat(args, []string{cache, image})...); !strings.Contains(out, "/etc/os-release\n") {
			t.Errorf("%s: %s", args, out)
		}
	}
	if n := reg.Bytes(registrytest.Blob, registrytest.CDN) - before; n > 0 {
		t.Errorf("%d bytes of blobs were fetched", n)
	}
	succeed(t, "sum", "--read", cache, image, "/etc/os-release")
	if reg.Bytes(registrytest.Blob, registrytest.CDN) == before {
		t.Error("nothing was fetched to read a file: the counter does not count")
	}
}
