package main

import (
	"context"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/serve"
	"github.com/imgfs/imgfs/fs/overlayfs"
)

// overlayFlag has a mount take what is written.
const overlayFlag = "overlay"

// openOverlay opens the directory that is to take what is written in a mount, and looks for
// reasons why that cannot be. dir is where the user wants to have the mount; "" has one
// made. The image is to be mounted on the directory that it returns, besides.
func (m *mounter) openOverlay(ctx context.Context, name, dir string) (o *serve.Overlay, image *serve.Mountpoint, err error) {
	o = &serve.Overlay{Options: &overlayfs.Options{NoSuid: !m.suid, NoDev: !m.dev, NoExec: m.noExec, AllowOther: m.allowOther}}
	defer func() {
		if err != nil {
			closeOverlay(o)
		}
	}()
	if o.Upper, err = overlayfs.Open(ctx, m.overlay); err != nil {
		return o, nil, err
	}
	if dir == "" {
		if o.Made, err = serve.MakeMountpoint(ctx, mountpointName(name), m.allowOther); err != nil {
			return o, nil, err
		}
		dir = o.Made.Dir
	}
	target, err := checkDir(ctx, dir, nil)
	if err != nil {
		return o, nil, err
	}
	o.Dir = target.Dir()
	target.Close()
	if err := o.Upper.Check(ctx, o.Dir, o.Options); err != nil {
		return o, nil, err
	}
	image, err = serve.MakeMountpoint(ctx, mountpointName(name)+"-below", false)
	return o, image, err
}

// closeOverlay gives up what openOverlay has opened, when nothing is mounted any more.
func closeOverlay(o *serve.Overlay) {
	if o.Upper != nil {
		o.Upper.Close()
	}
	o.Made.Remove()
}
