package serve

import "github.com/opencontainers/go-digest"

// Engines that have mounts.
const (
	EngineContainerd = "containerd" // with imgfs snapshotter
	EnginePodman     = "podman"     // with imgfs podman
)

// An Engine says for which engine an image is mounted, and who uses it there.
type Engine struct {
	Kind   string        `json:"kind"`
	Chain  digest.Digest `json:"chain,omitempty"`  // of containerd: the layers that are mounted
	Images []string      `json:"images,omitempty"` // as the engine calls those that have them, the latest first
	// Containers are those of containerd, running or not. nil: not known.
	Containers []EngineContainer `json:"containers,omitzero"`
	// Why says why something is not known.
	Why string `json:"why,omitempty"`
}

// An EngineContainer is a snapshot of containerd above a mount: the files of a container, or a
// view of an image.
type EngineContainer struct {
	Namespace string `json:"namespace"`
	Key       string `json:"key"` // of the snapshot: mostly the container's ID
	View      bool   `json:"view"`
}
