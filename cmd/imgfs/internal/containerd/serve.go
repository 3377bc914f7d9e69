package containerd

import (
	"context"
	"errors"
	"net"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/core/snapshots"
	"google.golang.org/grpc"
)

// endLimit is how long calls that are under way may take after the server has been told to
// end. Those that wait for an image to be indexed would take longer: containerd's client asks
// again after a restart.
const endLimit = 2 * time.Second

// Serve answers calls for a snapshotter until ctx ends, and closes the listener. images, if
// not nil, takes those about images. ready is called when calls are answered.
func Serve(ctx context.Context, l net.Listener, s snapshots.Snapshotter, images *ImageService, ready func()) error {
	var opts []grpc.ServerOption
	if images != nil {
		opts = append(opts, grpc.UnknownServiceHandler(images.serve))
	}
	server := grpc.NewServer(opts...)
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(s))
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	ready()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	hurry := time.AfterFunc(endLimit, server.Stop)
	defer hurry.Stop()
	server.GracefulStop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}
