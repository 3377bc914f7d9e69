package bundle

import (
	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// checkPlatform refuses an image that this machine cannot run. What the config does not
// say is taken to fit.
func checkPlatform(config *ocispec.Image) error {
	if config.OS != "" && config.OS != "linux" {
		return refuse(BadPlatform, "the image is for %s: only images for linux can be run", printable.Name(config.OS))
	}
	if arch := config.Architecture; arch != "" && !executes(arch) {
		return refuse(BadPlatform, "the image is for linux/%s, which this machine does not execute", printable.Name(arch))
	}
	return nil
}
