//go:build !linux

package snapshotter

// overlayOptions returns the options that every overlay of a root has: there are no overlays
// elsewhere than on Linux.
func overlayOptions(string) ([]string, error) { return nil, nil }
