package starts

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner/runnertest"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// TestMain lets the test binary be the reader that the program starts.
func TestMain(m *testing.M) { os.Exit(runnertest.Main(m.Run)) }

// small returns the group with one small image, and with another that cannot be had.
func small(t *testing.T, r *runner.Runner) runner.Group {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	return newGroup(r, settings{pages: true, candidates: []candidate{
		{"shell", "bash of this machine", []program{{"bash", "`bash -c true`", []string{bash, "-c", "true"}}}, labimage.Copies(bash)},
		candidates[0],
	}})
}

// TestSmoke measures a small image: a start with a profile has something fetched by it.
func TestSmoke(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it needs root")
	}
	r := runnertest.New(t, t.Context())
	runnertest.Measure(t, r, small(t, r))
	all := r.Group.Sections[0].Figures
	profiled, missing := false, 0
	for _, f := range all {
		profiled = profiled || strings.HasSuffix(f.Name, "expected and not read")
		if f.Missing != "" {
			missing++
		} else if f.Ours <= 0 && f.Unit == "s" {
			t.Errorf("%+v took no time", f)
		}
	}
	if !profiled || missing != len(candidates[0].programs) {
		t.Errorf("got %+v", all)
	}
}

// TestInterrupted: an interrupted bench leaves nothing running.
func TestInterrupted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it needs root")
	}
	runnertest.Interrupt(t, func(r *runner.Runner) runner.Group { return small(t, r) })
}

// TestReport: the bound is of the bytes that were used, and of the start with all of them.
func TestReport(t *testing.T) {
	r := runner.New(t.Context(), runner.Settings{Logf: t.Logf})
	r.Now = &figures.Section{}
	b := &bench{Runner: r}
	s := start{took: 5 * time.Second, program: 4 * time.Second, requests: 10, moved: 30e6}
	s.stats.Total = &struct {
		Asked, Requests, Fetched int64
		Waits                    int64
		WaitP99Seconds           float64
	}{}
	known := s
	known.took = 3 * time.Second
	known.stats.Profile.Fetched, known.stats.Profile.Used = 20e6, 15e6
	warm := s
	warm.took, warm.program, warm.again = time.Second, 500*time.Millisecond, 100*time.Millisecond
	disk := []time.Duration{200 * time.Millisecond}
	l := line{"slow", 0, 100}
	b.report(l, program{what: "p"}, &result{[]start{s}, []start{known}, []start{warm}, disk, disk}, []pulled{{peer: "podman", took: 4 * time.Second}, {peer: "stargz", traced: true, took: 2 * time.Second}})
	want := map[string]string{ // the first of each name
		"p: first start, no profile":                        "**no**",
		"p: with the profile of another tag":                "yes",
		"p: expected and not read":                          "**no**",
		"p: the program, warm":                              "yes",
		"p: the program, bytes in the cache, pages dropped": "**no**",
	}
	for _, f := range r.Now.Figures {
		if met, ok := want[f.Name]; ok && f.Met() != met {
			t.Errorf("%+v: met %q, want %q", f, f.Met(), met)
		}
		if f.Peer == "bound" && f.Theirs != 3 { // 25 MB at 100 Mbit/s, and a second
			t.Errorf("the bound is %v s, want 3", f.Theirs)
		}
		delete(want, f.Name)
	}
	if len(want) > 0 {
		t.Errorf("no row of %v", want)
	}
}

// TestLines: without a name only the usual line is measured, and all if all are asked for.
func TestLines(t *testing.T) {
	for _, c := range []struct {
		only string
		all  bool
		want string
	}{{"", false, "usual"}, {"", true, "near usual far"}, {"far/node", false, "far"}, {"near", false, "near"}} {
		r := runner.New(t.Context(), runner.Settings{Only: c.only})
		g := newGroup(r, settings{Options: Options{All: c.all}})
		if got := strings.Join(g.Names(), " "); got != c.want {
			t.Errorf("-only %q: %s, want %s", c.only, got, c.want)
		}
	}
}

// TestNamesIn: what imgfs profile show prints names each file once, in order.
func TestNamesIn(t *testing.T) {
	got, err := namesIn(`{"starts":[{"reads":[{"path":"/b"},{"path":"/a"},{"path":"/b"}]},{"reads":[{"path":"/c"}]}]}`)
	if err != nil || strings.Join(got, " ") != "/b /a /c" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := namesIn(`{}`); err == nil {
		t.Error("no file is named, and it takes that")
	}
}
