package metrics_test

import (
	"bufio"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/metrics"
)

// TestText: what is written is the text format, escaped as that wants it.
func TestText(t *testing.T) {
	got, err := metrics.Text([]metrics.Family{
		metrics.One(metrics.Counter, "a_total", "A \\ help\nof two lines, with \"quotes\".", 1<<53),
		{Name: "b:c", Help: "Odd \xff bytes.", Type: metrics.Gauge, Samples: []metrics.Sample{
			{Labels: []metrics.Label{{"one", "\\ \" \n é \xff"}, {"two", ""}}, Value: 0.1},
			{Labels: []metrics.Label{{"one", "x"}}, Value: math.Inf(-1)},
			{Value: math.NaN()},
		}},
		{Name: "none", Help: "", Type: metrics.Gauge},
	})
	want := `# HELP a_total A \\ help\nof two lines, with "quotes".
# TYPE a_total counter
a_total 9.007199254740992e+15
# HELP b:c Odd � bytes.
# TYPE b:c gauge
b:c{one="\\ \" \n é �",two=""} 0.1
b:c{one="x"} -Inf
b:c NaN
# HELP none 
# TYPE none gauge
`
	if err != nil || string(got) != want {
		t.Errorf("got error %v and\n%s\nwant\n%s", err, got, want)
	}
}

// TestTextRefuses: a program that names things wrongly gets no text.
func TestTextRefuses(t *testing.T) {
	label := func(all ...metrics.Label) metrics.Family {
		return metrics.Family{Name: "a", Type: metrics.Gauge, Samples: []metrics.Sample{{Labels: all}}}
	}
	for name, families := range map[string][]metrics.Family{
		"no name":      {metrics.One(metrics.Gauge, "", "", 1)},
		"a bad name":   {metrics.One(metrics.Gauge, "a-b", "", 1)},
		"a line":       {metrics.One(metrics.Gauge, "a\nb 1", "", 1)},
		"twice":        {metrics.One(metrics.Gauge, "a", "", 1), metrics.One(metrics.Gauge, "a", "", 1)},
		"counter":      {metrics.One(metrics.Counter, "a", "", 1)},
		"gauge":        {metrics.One(metrics.Gauge, "a_total", "", 1)},
		"label":        {label(metrics.Label{"a-b", ""})},
		"own label":    {label(metrics.Label{"__name__", ""})},
		"label twice":  {label(metrics.Label{"a", "1"}, metrics.Label{"a", "2"})},
		"sample twice": {{Name: "a", Type: metrics.Gauge, Samples: []metrics.Sample{{Value: 1}, {Value: 2}}}},
	} {
		if text, err := metrics.Text(families); err == nil {
			t.Errorf("%s: no error, and %q", name, text)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]metrics.Address{
		"127.0.0.1:9753":           {"tcp", "127.0.0.1:9753"},
		"127.9.8.7:1":              {"tcp", "127.9.8.7:1"},
		"[::1]:9753":               {"tcp", "[::1]:9753"},
		"localhost:9753":           {"tcp", "127.0.0.1:9753"},
		"[::ffff:127.0.0.1]:9":     {"tcp", "[::ffff:127.0.0.1]:9"},
		"unix:/run/imgfs/m.sock":   {"unix", "/run/imgfs/m.sock"},
		"unix:///run/imgfs/m.sock": {"unix", "/run/imgfs/m.sock"},
	} {
		if got, err := metrics.ParseAddress(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, why := range map[string]string{
		"":                    "HOST:PORT or unix:PATH",
		"9753":                "HOST:PORT or unix:PATH",
		":9753":               "no address that this machine alone can reach",
		"0.0.0.0:9753":        "no address that this machine alone can reach",
		"[::]:9753":           "no address that this machine alone can reach",
		"192.168.1.1:9753":    "no address that this machine alone can reach",
		"[::ffff:10.0.0.1]:9": "no address that this machine alone can reach",
		"example.com:9753":    "no address that this machine alone can reach",
		"localhost.evil:9753": "no address that this machine alone can reach",
		"127.0.0.1:http":      "is no port",
		"127.0.0.1:70000":     "is no port",
		"127.0.0.1:-1":        "is no port",
		"unix:":               "begins with a slash",
		"unix:m.sock":         "begins with a slash",
		"tcp://127.0.0.1:1":   "HOST:PORT or unix:PATH",
	} {
		if got, err := metrics.ParseAddress(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: got %+v and error %v, want one that says %q", text, got, err, why)
		}
	}
}

// served begins to serve one number, and returns a client of it.
func served(t *testing.T, collect func(ctx context.Context) []metrics.Family) (client *http.Client, url string, end func() error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- metrics.Serve(ctx, l, collect) }()
	end = sync.OnceValue(func() error {
		cancel()
		return <-over
	})
	t.Cleanup(func() { end() })
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}, "http://localhost" + metrics.Path, end
}

func one(context.Context) []metrics.Family {
	return []metrics.Family{metrics.One(metrics.Gauge, "a", "A.", 1)}
}

// TestServe: only GET and HEAD of one path are answered, and no more after the end.
func TestServe(t *testing.T) {
	client, url, end := served(t, one)
	for _, tt := range []struct {
		method, url string
		status      int
		body        string
	}{
		{"GET", url, 200, "# HELP a A.\n# TYPE a gauge\na 1\n"},
		{"HEAD", url, 200, ""},
		{"GET", url + "?name[]=x", 200, "# HELP a A.\n# TYPE a gauge\na 1\n"},
		{"POST", url, 405, "Method Not Allowed\n"},
		{"DELETE", url, 405, "Method Not Allowed\n"},
		{"GET", url + "/x", 404, "404 page not found\n"},
		{"GET", "http://localhost/", 404, "404 page not found\n"},
	} {
		r, err := http.NewRequest(tt.method, tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tt.status || string(body) != tt.body {
			t.Errorf("%s %s: got %d and %q, error %v, want %d and %q", tt.method, tt.url, resp.StatusCode, body, err, tt.status, tt.body)
		}
		if got := resp.Header.Get("Content-Type"); tt.status == 200 && got != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("%s %s: Content-Type %q", tt.method, tt.url, got)
		}
	}
	if err := end(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if resp, err := client.Get(url); err == nil {
		resp.Body.Close()
		t.Error("it is served after the end")
	}
}

// TestServeEnds: neither a scrape that hangs, nor a client that says nothing, delays the end.
func TestServeEnds(t *testing.T) {
	begun := make(chan struct{})
	client, url, end := served(t, func(ctx context.Context) []metrics.Family {
		close(begun)
		<-ctx.Done()
		return nil
	})
	conn, err := client.Transport.(*http.Transport).DialContext(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /met")); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if resp, err := client.Get(url); err == nil {
			resp.Body.Close()
		}
	}()
	<-begun
	at := time.Now()
	if err := end(); err != nil || time.Since(at) > 5*time.Second {
		t.Errorf("it ends after %v with %v", time.Since(at), err)
	}
	<-asked
}

// TestServeCrowd: many scrapes at a time are answered or refused, and connections beyond the
// bound are closed.
func TestServeCrowd(t *testing.T) {
	release := make(chan struct{})
	client, url, _ := served(t, func(ctx context.Context) []metrics.Family {
		<-release
		return one(ctx)
	})
	status := make(chan int, 40)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			resp, err := client.Get(url)
			if err != nil {
				status <- 0
				return
			}
			resp.Body.Close()
			status <- resp.StatusCode
		})
	}
	for range 40 - 16 {
		if code := <-status; code != http.StatusServiceUnavailable {
			t.Errorf("status %d while 16 scrapes are answered", code)
		}
	}
	close(release)
	all.Wait()
	for range 16 {
		if code := <-status; code != http.StatusOK {
			t.Errorf("status %d", code)
		}
	}
	client.CloseIdleConnections()

	dial := client.Transport.(*http.Transport).DialContext
	closed := 0
	for range 80 {
		conn, err := dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if closed > 0 {
			continue
		}
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(conn).ReadByte(); err == io.EOF {
			closed++
		}
	}
	if closed == 0 {
		t.Error("80 connections are open at a time")
	}
}
