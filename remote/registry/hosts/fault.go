package hosts

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/imgfs/imgfs/remote/registry/internal/scrub"
)

var (
	// ErrConfiguration: a configuration file cannot be read or makes no sense.
	// The text names the file, and the line where it is known.
	ErrConfiguration = errors.New("bad configuration")
	// ErrBlocked: registries.conf forbids to pull the image.
	ErrBlocked = errors.New("blocked")
)

// A fault is one of the errors above with its reason, which is scrubbed.
type fault struct {
	class error
	text  string
}

func (f *fault) Error() string { return f.class.Error() + ": " + f.text }

func (f *fault) Unwrap() error { return f.class }

// configFault says what is wrong with a file. The reasons of the TOML parser
// name the line.
func configFault(path string, err error) *fault {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	var at *fs.PathError
	if errors.As(err, &at) {
		text = at.Err.Error()
	}
	return &fault{ErrConfiguration, path + ": " + scrub.Text(text)}
}
