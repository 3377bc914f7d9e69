package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ConfigName is the name of the config in a bundle.
const ConfigName = "config.json"

// Write writes the config of the bundle dir: whole, or not at all. One that is there is
// replaced. Only the user can read it: variables may be secrets.
func Write(spec *specs.Spec, dir string) error {
	text, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".config-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, ConfigName))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
