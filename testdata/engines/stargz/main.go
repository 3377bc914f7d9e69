// Stargz is the snapshotter of the stargz project for registries that ask no credentials,
// for the bench. The project's own program is of a module that the Go proxy does not have.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/service"
	"google.golang.org/grpc"
)

func main() {
	address := flag.String("address", "", "`socket` to listen on")
	root := flag.String("root", "", "`directory` of its state")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *address, *root); err != nil {
		fmt.Fprintln(os.Stderr, "stargz:", err)
		os.Exit(1)
	}
}

// serve serves until the context ends, and takes all mounts away then.
func serve(ctx context.Context, address, root string) error {
	// Files are kept open, as the project's program has it by default.
	config := &service.Config{}
	config.DirectoryCacheConfig.Direct = true
	s, err := service.NewStargzSnapshotterService(context.WithoutCancel(ctx), root, config)
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := net.Listen("unix", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(s))
	go func() {
		<-ctx.Done()
		server.Stop()
	}()
	return server.Serve(l)
}
