package main

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/containerd"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/metrics"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/spf13/pflag"
)

// metricsPrefix begins the names of all metrics. docs/engines.md lists them.
const metricsPrefix = "imgfs_snapshotter_"

// metricsFlag is the value of --metrics.
type metricsFlag struct {
	metrics.Address
	text string
}

var _ pflag.Value = (*metricsFlag)(nil)

// String implements pflag.Value.
func (m *metricsFlag) String() string { return m.text }

// Type implements pflag.Value.
func (m *metricsFlag) Type() string { return "address" }

// Set implements pflag.Value.
func (m *metricsFlag) Set(text string) (err error) {
	m.text = text
	m.Address, err = metrics.ParseAddress(text)
	return err
}

// listen listens where metrics are to be served.
func (m *metricsFlag) listen(ctx context.Context) (net.Listener, error) {
	if m.Network == "unix" {
		return containerd.ListenAt(ctx, m.Name)
	}
	return (&net.ListenConfig{}).Listen(ctx, m.Network, m.Name)
}

// A meter tells the metrics of a snapshotter.
type meter struct {
	snaps  *snapshotter.Snapshotter
	trees  *containerd.Trees
	totals *serve.Totals
	began  time.Time
}

// serveMetrics begins to serve metrics, if that is wanted, until stop is called.
func (s *snapshotterServer) serveMetrics(ctx context.Context, snaps *snapshotter.Snapshotter, trees *containerd.Trees) (stop func(), err error) {
	if s.metrics.text == "" {
		return func() {}, nil
	}
	root, err := filepath.EvalSymlinks(s.root) // as the table of mounts has it
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	l, err := s.metrics.listen(ctx)
	if err != nil {
		return nil, cli.WithHint(err, "--metrics names another address")
	}
	s.e.Debugf("metrics at %s", l.Addr())
	m := &meter{snaps: snaps, trees: trees, totals: serve.NewTotals(root), began: time.Now()}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := metrics.Serve(ctx, l, m.collect); err != nil {
			s.e.Warnf("metrics are not served any more: %v", err)
		}
	})
	return func() {
		cancel()
		serving.Wait()
	}, nil
}

// collect returns the metrics as they are now. Of mounts that do not answer it does not wait
// for the numbers.
func (m *meter) collect(ctx context.Context) []metrics.Family {
	sum, health := m.totals.Ask(ctx)
	n := m.snaps.Stats()
	counter := func(name, help string, value uint64) metrics.Family {
		return metrics.One(metrics.Counter, metricsPrefix+name+"_total", help, float64(value))
	}
	gauge := func(name, help string, value float64) metrics.Family {
		return metrics.One(metrics.Gauge, metricsPrefix+name, help, value)
	}
	ofTrees := func(name, help string, value int64) metrics.Family { return counter(name, help, uint64(max(value, 0))) }
	fallbacks := make(map[string]float64)
	for _, r := range snapshotter.Reasons() {
		fallbacks[string(r)] = float64(n.Fallbacks[r])
	}
	healths := make(map[string]float64)
	for h, count := range health {
		healths[h] = float64(count)
	}
	return []metrics.Family{
		{Name: "imgfs_build_info", Help: "The version of imgfs, and always 1.", Type: metrics.Gauge,
			Samples: []metrics.Sample{{Labels: []metrics.Label{{Name: "version", Value: version()}}, Value: 1}}},
		gauge("start_time_seconds", "When the snapshotter began, in seconds since 1970.", float64(m.began.UnixMilli())/1000),
		gauge("chains", "Lazy chains that snapshots need.", float64(n.Chains)),
		gauge("chains_mounted", "Of these those that are mounted.", float64(n.Mounted)),
		byLabel(metrics.Gauge, "mounts", "Mounts below the root, by their health as imgfs ps has it.", "health", healths),
		counter("lazy_layers", "Layers that had to be neither fetched nor unpacked.", n.Lazy),
		byLabel(metrics.Counter, "fallbacks_total", "Layers that were unpacked although a lazy snapshot was asked for.", "reason", fallbacks),
		counter("mount_attempts", "Chains that were to be mounted.", n.Mounts+n.MountFailures),
		counter("mount_failures", "Of these those that could not be mounted.", n.MountFailures),
		counter("mounts_mended", "Of these those in whose place was a mount that nobody served any more.", n.Mended),
		counter("unmounts", "Chains that were unmounted.", n.Unmounts),
		counter("passes", "Passes over the layers of an image, to index them.", n.Passes),
		counter("pass_failures", "Of these those that failed.", n.PassFailures),
		counter("pass_waits", "Calls that had to wait for a pass.", n.Waits),
		byLabel(metrics.Counter, "fetched_bytes_total", "Bytes that came over the network, by what for.", "purpose", map[string]float64{
			"pass": float64(m.trees.Passed()), "read": float64(sum.Fetched), "index": float64(sum.Indexed), "manifest": float64(sum.Meta)}),
		ofTrees("read_bytes", "Bytes of files that mounts were asked for.", sum.Asked),
		ofTrees("cached_bytes", "Bytes of layers that mounts took from the cache.", sum.Hits),
		ofTrees("requests", "Requests that mounts sent for layers.", sum.Requests),
		ofTrees("reads", "Reads of files that mounts were asked for.", sum.Reads),
		ofTrees("read_waits", "Of these those that had to wait.", sum.Waits),
		ofTrees("read_failures", "Of these those that failed.", sum.Errors),
		ofTrees("wrong_chunks", "Pieces of layers that were not what they should be, and were not used.", sum.Bad),
	}
}

// byLabel returns a family whose samples a label tells apart.
func byLabel(kind metrics.Type, name, help, label string, values map[string]float64) metrics.Family {
	f := metrics.Family{Name: metricsPrefix + name, Help: help, Type: kind}
	keys := make([]string, 0, len(values))
	for k := range values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		f.Samples = append(f.Samples, metrics.Sample{Labels: []metrics.Label{{Name: label, Value: k}}, Value: values[k]})
	}
	return f
}
