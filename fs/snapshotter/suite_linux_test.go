package snapshotter_test

import (
	"context"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/imgfs/imgfs/fs/snapshotter"
)

// TestSuite: what is not lazy is as containerd wants it of every snapshotter.
func TestSuite(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount the overlays of containerd's suite")
	}
	if err := overlayutils.Supported(t.TempDir()); err != nil {
		t.Skipf("overlays cannot be mounted here: %v", err)
	}
	trees := newFakeTrees(t)
	// Of another name than overlayfs the suite expects that directories can be renamed.
	testsuite.SnapshotterSuite(t, "overlayfs", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		s, err := snapshotter.New(ctx, root, trees, nil)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	})
}
