package sourcetest_test

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

func TestStore(t *testing.T) {
	sourcetest.Run(t, func(_ *testing.T, store *sourcetest.Store, top ocispec.Descriptor) (remote.Source, error) {
		return store.Source("memory", top), nil
	}, nil)
}
