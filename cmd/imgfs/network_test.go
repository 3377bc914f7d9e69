package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/spf13/pflag"
)

func TestNetworkFlags(t *testing.T) {
	const minute = time.Minute
	for _, c := range []struct {
		args    string
		refused string
		read    time.Duration
		stall   time.Duration
		tries   int
		most    int
	}{
		{"", "", minute, 10 * time.Second, 6, 16},
		{"--read-timeout=5m --max-requests=2", "", 5 * minute, 10 * time.Second, 6, 2},
		{"--read-timeout=3s --retries=0", "", 3 * time.Second, time.Second, 1, 16},
		{"--read-timeout=0", "", -1, 0, math.MaxInt, 16},
		{"--read-timeout=0 --retries=9", "", -1, 0, 10, 16},
		{fmt.Sprintf("--retries=%d", math.MaxInt), "", minute, 10 * time.Second, math.MaxInt, 16},
		{"--read-timeout=-1s", "less than nothing", 0, 0, 0, 0},
		{"--retries=-1", "less than none", 0, 0, 0, 0},
		{"--max-requests=0", "between 1 and 1000", 0, 0, 0, 0},
		{"--max-requests=1001", "between 1 and 1000", 0, 0, 0, 0},
	} {
		f := pflag.NewFlagSet("mount", pflag.ContinueOnError)
		set := networkFlags(f)
		var n network
		if err := f.Parse(strings.Fields(c.args)); err != nil {
			t.Fatalf("%s: %v", c.args, err)
		}
		if err := set(&n); c.refused != "" || err != nil {
			if c.refused == "" || !cli.IsUsage(err) || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: got error %v, want %q", c.args, err, c.refused)
			}
			continue
		}
		var o registry.Options
		n.configure(&o)
		if o.ReadTimeout != c.read || o.StallTimeout != c.stall || o.Tries != c.tries || o.MaxRequests != c.most {
			t.Errorf("%s: got %s, %s, %d, %d, want %s, %s, %d, %d", c.args, o.ReadTimeout, o.StallTimeout, o.Tries, o.MaxRequests, c.read, c.stall, c.tries, c.most)
		}
	}
}
