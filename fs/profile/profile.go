package profile

import (
	"errors"
	"strings"
	"time"
)

const (
	// Grain is what offsets and sizes of reads are multiples of, in bytes.
	Grain = 64 << 10

	// MaxStarts is how many starts a profile has at most, the latest ones.
	MaxStarts = 8
	// MaxReads is how many reads all starts of a profile have at most, together.
	MaxReads = 1 << 15
	// MaxPath is how long a path may be, in bytes.
	MaxPath = 4096
	// MaxStartBytes bounds what the reads of one start ask for. Who reads more goes through
	// an image, and starts no program.
	MaxStartBytes = 512 << 20
	// MinStartBytes is how much a start must have read to be worth a place.
	MinStartBytes = 512 << 10
)

// ErrFormat: a profile cannot be read. It comes wrapped, with what is wrong.
var ErrFormat = errors.New("no profile of imgfs")

// A Profile is what is known of the images of one repository for one platform. It is not
// safe for concurrent use.
type Profile struct {
	// Repository and Platform say what it was made of, for people: "docker.io/library/node",
	// "linux/amd64".
	Repository, Platform string
	// Starts are the last one used first.
	Starts []Start
}

// A Start is what a program reads, and what it starts, until it has all that it needs.
type Start struct {
	Last  time.Time // when it was seen last
	Runs  int       // how often it was seen
	Reads []Read    // in the order in which they were needed
}

// A Read is a part of a file that is read.
type Read struct {
	Path string // absolute, with no symlink in it
	// Off and Size are in bytes of the file, multiples of Grain. The end may lie behind the
	// end of the file.
	Off, Size int64
	After     time.Duration // from the beginning of the start
	// Share is of how many of a hundred starts it is a part, the latest counting most.
	Share int
}

// End is where the read ends, in bytes of the file.
func (r Read) End() int64 { return r.Off + r.Size }

// New returns a profile without starts.
func New(repository, platform string) *Profile {
	return &Profile{Repository: repository, Platform: platform}
}

// Bytes returns how many bytes the reads of a start ask for, with those of a share of less
// than least left out.
func (s *Start) Bytes(least int) (n int64) {
	for _, r := range s.Reads {
		if r.Share >= least {
			n += r.Size
		}
	}
	return n
}

// Files returns how many files the start reads.
func (s *Start) Files() int {
	seen := map[string]bool{}
	for _, r := range s.Reads {
		seen[r.Path] = true
	}
	return len(seen)
}

// isPath reports whether a path can be one of a tree.
func isPath(p string) bool {
	return len(p) > 1 && len(p) <= MaxPath && strings.HasPrefix(p, "/") && !strings.Contains(p, "\x00")
}

// isRead reports whether a read can be one of a file.
func isRead(off, size int64) bool {
	return off >= 0 && size > 0 && off%Grain == 0 && size%Grain == 0 && size <= MaxStartBytes && off <= 1<<60
}
