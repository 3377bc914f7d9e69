//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// scrape asks for metrics, and returns them by name and labels.
func scrape(t testing.TB, network, address string) (map[string]float64, time.Duration) {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	begun := time.Now()
	resp, err := client.Get("http://localhost/metrics")
	if err != nil {
		t.Error(err)
		return nil, 0
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("status %d, error %v:\n%s", resp.StatusCode, err, text)
	}
	return parseMetrics(t, string(text)), time.Since(begun)
}

var (
	metricHelp   = regexp.MustCompile(`^# HELP ([a-z_]+) (\S.*\.)$`)
	metricType   = regexp.MustCompile(`^# TYPE ([a-z_]+) (counter|gauge)$`)
	metricSample = regexp.MustCompile(`^([a-z_]+)((?:\{[a-z_]+="(?:[^"\\]|\\\\|\\"|\\n)*"(?:,[a-z_]+="(?:[^"\\]|\\\\|\\"|\\n)*")*\})?) (\S+)$`)
)

// parseMetrics reads the text format strictly: each family once, its help, its type, and then
// its samples, each once.
func parseMetrics(t testing.TB, text string) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	family, kind, seen := "", "", make(map[string]bool)
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("the last line does not end:\n%s", text)
	}
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if m := metricHelp.FindStringSubmatch(line); m != nil && !seen[m[1]] {
			family, kind = m[1], ""
			seen[family] = true
			continue
		}
		if m := metricType.FindStringSubmatch(line); m != nil && m[1] == family && kind == "" {
			kind = m[2]
			if counts := strings.HasSuffix(family, "_total"); counts != (kind == "counter") {
				t.Errorf("%s is a %s", family, kind)
			}
			continue
		}
		m := metricSample.FindStringSubmatch(line)
		if m == nil || m[1] != family || kind == "" {
			t.Fatalf("line %d is not of the format: %q", i+1, line)
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if _, twice := all[m[1]+m[2]]; twice || err != nil || v < 0 {
			t.Errorf("line %d: %q: %v", i+1, line, err)
		}
		all[m[1]+m[2]] = v
	}
	return all
}

// TestSnapshotterMetrics: what is told agrees with what was done, only grows, and comes in
// time while a mount hangs or is dead.
func TestSnapshotterMetrics(t *testing.T) {
	testenv.Slow(t)
	e := newEngine(t)
	sock := filepath.Join(e.dir, "m.sock")
	e.kill(&e.snapshotter)
	e.flags = []string{"--metrics", "unix:" + sock}
	e.startSnapshotter()
	if !eventually(20*time.Second, func() bool {
		_, err := os.Stat(sock)
		return err == nil
	}) {
		t.Fatal("nobody listens for scrapes")
	}
	const prefix = "imgfs_snapshotter_"
	last := map[string]float64{}
	see := func(when string, want map[string]float64) map[string]float64 {
		t.Helper()
		got, took := scrape(t, "unix", sock)
		if took > 3*time.Second {
			t.Errorf("%s: the scrape takes %v", when, took)
		}
		for name, v := range want {
			if got[prefix+name] != v {
				t.Errorf("%s: %s is %v, want %v", when, name, got[prefix+name], v)
			}
		}
		for name, v := range got {
			if strings.Contains(name, "_total") && v < last[name] {
				t.Errorf("%s: %s was %v and is %v", when, name, last[name], v)
			}
		}
		last = got
		return got
	}
	if !eventually(soon, func() bool { _, err := os.Stat(sock); return err == nil }) { // later than the other socket
		t.Fatal("no socket for metrics")
	}
	see("at first", map[string]float64{"chains": 0, "lazy_layers_total": 0, "passes_total": 0, `mounts{health="ok"}`: 0, `fallbacks_total{reason="unreachable"}`: 0})
	if st, err := os.Stat(sock); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st, err)
	}

	reg := registrytest.New(t, nil)
	image := pushed(t, reg, "debian")
	layers := float64(len(layersIn(t, runnables(t)["debian"])))
	e.pull(image)
	e.keeps(image, "stays", "sleep", "1000")
	e.runs(image, "reads", "cat", "/etc/motd")
	got := see("after a run", map[string]float64{"chains": layers, "chains_mounted": 1, "lazy_layers_total": layers, "passes_total": 1, "pass_failures_total": 0,
		"mount_attempts_total": 1, "mount_failures_total": 0, `mounts{health="ok"}`: 1, "read_failures_total": 0, "wrong_chunks_total": 0})
	size := float64(sizeBelow(t, runnables(t)["debian"]))
	if n := got[prefix+`fetched_bytes_total{purpose="pass"}`]; n < size*3/4 || n > size {
		t.Errorf("the pass has fetched %v bytes of an image of %v", n, size)
	}
	if got[prefix+"read_bytes_total"] == 0 || got[prefix+"reads_total"] == 0 {
		t.Errorf("nothing is said to be read: %v", got)
	}

	locked := registrytest.New(t, &registrytest.Options{Login: registrytest.Basic, User: "joe", Password: "secret"})
	busybox := pushed(t, locked, "busybox")
	e.pull(busybox, "--user", "joe:secret")
	see("after falling back", map[string]float64{`fallbacks_total{reason="unreachable"}`: float64(len(layersIn(t, runnables(t)["busybox"]))), "lazy_layers_total": layers})

	// A mount that hangs.
	for _, pid := range processes(filepath.Join(e.root(), "chains")) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(pid, syscall.SIGCONT)
	}
	see("while it hangs", map[string]float64{`mounts{health="no answer"}`: 1, `mounts{health="ok"}`: 0})
	var crowd sync.WaitGroup
	for range 8 {
		crowd.Go(func() {
			if got, took := scrape(t, "unix", sock); took > 3*time.Second || got[prefix+`mounts{health="no answer"}`] != 1 {
				t.Errorf("one of 8 scrapes takes %v, and has %v", took, got)
			}
		})
	}
	crowd.Wait()
	for _, pid := range processes(filepath.Join(e.root(), "chains")) {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if !eventually(10*time.Second, func() bool {
		got, _ := scrape(t, "unix", sock)
		return got[prefix+`mounts{health="ok"}`] == 1
	}) {
		t.Error("it does not answer again")
	}
	kill9(filepath.Join(e.root(), "chains"))
	see("when it is dead", map[string]float64{`mounts{health="dead"}`: 1, `mounts{health="ok"}`: 0})
	e.runs(image, "again", "cat", "/etc/motd")
	see("when it was mounted again", map[string]float64{`mounts{health="ok"}`: 1, "mounts_mended_total": 1, "mount_attempts_total": 2})

	e.end("stays")
	e.does("image", "rm", "--sync", image, busybox)
	e.leavesNoTree()
	see("without images", map[string]float64{"chains": 0, "chains_mounted": 0, "unmounts_total": 1, `mounts{health="ok"}`: 0})
	if err := e.snapshotter.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := e.snapshotter.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	e.snapshotter = nil
	if _, err := os.Stat(sock); err == nil {
		t.Error("the socket of the metrics is left")
	}
}

// TestSnapshotterMetricsAddress: metrics are for this machine alone, and an address that is
// taken is an error.
func TestSnapshotterMetricsAddress(t *testing.T) {
	needEngine(t)
	s := newSandbox(t)
	for _, address := range []string{"0.0.0.0:9753", ":9753", "192.168.0.1:9753", "9753", "unix:m.sock"} {
		s.fails(2, []string{"--metrics", address}, "snapshotter", "--metrics", address)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	args := []string{"snapshotter", "--address", filepath.Join(s.dir, "s.sock"), "--root", filepath.Join(s.dir, "root"), "--metrics"}
	s.fails(1, []string{"address already in use", "--metrics names another address"}, append(args, l.Addr().String())...)

	// A free port of loopback.
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := s.command(append(args, fmt.Sprintf("localhost:%d", port))...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !eventually(20*time.Second, func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	}) {
		t.Error("nobody listens")
	} else {
		got, _ := scrape(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		checkMetricsDoc(t, got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

// checkMetricsDoc checks that docs/engines.md has the metrics that there are, and their labels.
func checkMetricsDoc(t *testing.T, all map[string]float64) {
	t.Helper()
	_, section, _ := strings.Cut(readDoc(t, "docs/engines.md"), "\n### Metrics\n")
	section, _, _ = strings.Cut(section, "\n### ")
	var documented, told []string
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) == 4 {
			for _, m := range regexp.MustCompile("`([a-z_]+)(\\{[a-z]+\\})?`").FindAllStringSubmatch(cells[1], -1) {
				if m[1] != "imgfs_snapshotter_" {
					documented = append(documented, m[1]+m[2])
				}
			}
		}
	}
	for name := range all {
		name, label, labelled := strings.Cut(strings.TrimPrefix(name, "imgfs_snapshotter_"), "{")
		if key, value, _ := strings.Cut(label, "="); labelled {
			if value = strings.Trim(value, `"}`); key != "version" && !strings.Contains(section, "`"+value+"`") {
				t.Errorf("docs/engines.md has no %s %q of %s", key, value, name)
			}
			name += "{" + key + "}"
		}
		if name != "imgfs_build_info{version}" {
			told = append(told, name)
		}
	}
	slices.Sort(documented)
	slices.Sort(told)
	if told = slices.Compact(told); !slices.Equal(documented, told) {
		t.Errorf("docs/engines.md has the metrics\n%q, and told are\n%q", documented, told)
	}
}
