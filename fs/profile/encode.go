package profile

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// MaxSize is how long a profile may be as Encode writes it, in bytes.
const MaxSize = 8 << 20

// format is what a profile says that it is: docs/profile-format.md.
const format = "imgfs profile 1"

// A file is a profile as JSON.
type file struct {
	Format     string  `json:"format"`
	Repository string  `json:"repository"`
	Platform   string  `json:"platform"`
	Starts     []start `json:"starts"`
}

type start struct {
	Last  time.Time `json:"last"`
	Runs  int       `json:"runs"`
	Paths []string  `json:"paths"`
	// PathBytes are the paths that are no UTF-8, by their numbers.
	PathBytes map[int][]byte `json:"pathBytes,omitempty"`
	Reads     []row          `json:"reads"`
}

// A row is a read: the number of its path, offset and size in grains, milliseconds after the
// beginning, share.
type row [5]int64

// UnmarshalJSON is strict: JSON would fill what is missing with zeros.
func (r *row) UnmarshalJSON(data []byte) error {
	var all []int64
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	if len(all) != len(r) {
		return fmt.Errorf("%d numbers in place of %d", len(all), len(r))
	}
	copy(r[:], all)
	return nil
}

// Encode returns the profile as a text, which docs/profile-format.md describes.
func (p *Profile) Encode() []byte {
	f := file{Format: format, Repository: p.Repository, Platform: p.Platform, Starts: []start{}}
	for _, s := range p.Starts {
		one := start{Last: s.Last.UTC().Truncate(time.Second), Runs: s.Runs, Paths: []string{}, Reads: []row{}}
		numbers := map[string]int{}
		for _, r := range s.Reads {
			n, known := numbers[r.Path]
			if !known {
				n = len(one.Paths)
				numbers[r.Path] = n
				if one.Paths = append(one.Paths, r.Path); !utf8.ValidString(r.Path) {
					if one.PathBytes == nil {
						one.PathBytes = map[int][]byte{}
					}
					one.PathBytes[n] = []byte(r.Path)
				}
			}
			one.Reads = append(one.Reads, row{int64(n), r.Off / Grain, r.Size / Grain, r.After.Milliseconds(), int64(r.Share)})
		}
		f.Starts = append(f.Starts, one)
	}
	text, _ := json.Marshal(f) // it has nothing that JSON cannot have
	return append(text, '\n')
}

// Decode reads what Encode has written. It reads no more than MaxSize bytes. The error wraps
// ErrFormat and says what is wrong, or is that of the reader.
func Decode(from io.Reader) (*Profile, error) {
	data, err := io.ReadAll(io.LimitReader(from, MaxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxSize)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrFormat, err)
	}
	if f.Format != format {
		return nil, fmt.Errorf("%w: its format is %.40q, not %q", ErrFormat, f.Format, format)
	}
	if len(f.Starts) > MaxStarts {
		return nil, fmt.Errorf("%w: %d starts, more than %d", ErrFormat, len(f.Starts), MaxStarts)
	}
	p := New(f.Repository, f.Platform)
	left := MaxReads
	for i, s := range f.Starts {
		if left -= len(s.Reads); left < 0 {
			return nil, fmt.Errorf("%w: more than %d reads", ErrFormat, MaxReads)
		}
		one, err := s.decode()
		if err != nil {
			return nil, fmt.Errorf("%w: start %d: %v", ErrFormat, i, err)
		}
		p.Starts = append(p.Starts, one)
	}
	return p, nil
}

// decode checks a start.
func (s *start) decode() (Start, error) {
	one := Start{Last: s.Last, Runs: s.Runs, Reads: make([]Read, 0, len(s.Reads))}
	if s.Runs < 1 || s.Runs > 1<<30 {
		return one, fmt.Errorf("%d runs", s.Runs)
	}
	if y := s.Last.UTC().Year(); y < 1970 || y > 9998 {
		return one, fmt.Errorf("it was seen in the year %d", y)
	}
	for n, p := range s.PathBytes {
		if n < 0 || n >= len(s.Paths) {
			return one, fmt.Errorf("bytes of path %d of %d", n, len(s.Paths))
		}
		s.Paths[n] = string(p)
	}
	for n, p := range s.Paths {
		if !isPath(p) {
			return one, fmt.Errorf("path %d is %.40q", n, p)
		}
	}
	var bytes int64
	for i, r := range s.Reads {
		path, off, size, after, share := r[0], r[1], r[2], r[3], r[4]
		switch {
		case path < 0 || path >= int64(len(s.Paths)):
			return one, fmt.Errorf("read %d is of path %d of %d", i, path, len(s.Paths))
		case off < 0 || off > 1<<40, size < 1 || size > MaxStartBytes/Grain, !isRead(off*Grain, size*Grain):
			return one, fmt.Errorf("read %d is of %d grains from %d", i, size, off)
		case after < 0 || after > time.Hour.Milliseconds():
			return one, fmt.Errorf("read %d is %d ms after the beginning", i, after)
		case share < 0 || share > 100:
			return one, fmt.Errorf("read %d has a share of %d", i, share)
		}
		if bytes += size * Grain; bytes > MaxStartBytes {
			return one, fmt.Errorf("it reads more than %d bytes", int64(MaxStartBytes))
		}
		one.Reads = append(one.Reads, Read{Path: s.Paths[path], Off: off * Grain, Size: size * Grain,
			After: time.Duration(after) * time.Millisecond, Share: int(share)})
	}
	return one, nil
}
