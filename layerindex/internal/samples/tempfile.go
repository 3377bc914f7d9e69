package samples

import (
	"errors"
	"os"
)

// TempFile makes a file in a directory that has lost its name.
func TempFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
