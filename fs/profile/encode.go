package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// MaxSize is how long a profile may be as Encode writes it, in bytes.
const MaxSize = 8 << 20

// format is what a profile says that it is: docs/profile-format.md.
const format = "imgfs profile 1"

// A file is a profile as JSON.
type file struct {
	Format     string `json:"format"`
	Repository string `json:"repository"`
	Platform   string `json:"platform"`
	Starts     starts `json:"starts"`
}

type start struct {
	Last  time.Time `json:"last"`
	Runs  int       `json:"runs"`
	Paths pathList  `json:"paths"`
	// PathBytes are the paths that are no UTF-8, by their numbers.
	PathBytes pathBytes `json:"pathBytes,omitempty"`
	Reads     rows      `json:"reads"`
}

// Lists whose length is bounded before they take memory.
type (
	starts    []start
	pathList  []string
	pathBytes map[int][]byte
	rows      []row
)

func (l *starts) UnmarshalJSON(data []byte) error {
	return eachOf(data, '[', MaxStarts, "starts", func(d *json.Decoder) error { return appendFrom(d, (*[]start)(l)) })
}

func (l *pathList) UnmarshalJSON(data []byte) error {
	return eachOf(data, '[', MaxReads, "paths", func(d *json.Decoder) error { return appendFrom(d, (*[]string)(l)) })
}

func (l *rows) UnmarshalJSON(data []byte) error {
	return eachOf(data, '[', MaxReads, "reads", func(d *json.Decoder) error { return appendFrom(d, (*[]row)(l)) })
}

func (l *pathBytes) UnmarshalJSON(data []byte) error {
	*l = pathBytes{}
	return eachOf(data, '{', MaxReads, "paths", func(d *json.Decoder) error {
		key, err := d.Token()
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(fmt.Sprint(key))
		if err != nil {
			return err
		}
		var path []byte
		err = d.Decode(&path)
		(*l)[n] = path
		return err
	})
}

// eachOf calls one for each element of a list or an object, which begins with a character, and
// has at most some.
func eachOf(data []byte, begin json.Delim, most int, what string, one func(d *json.Decoder) error) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t == nil {
		return err // null is none
	} else if t != begin {
		return fmt.Errorf("%s begin with %v, not %v", what, t, begin)
	}
	for n := 0; d.More(); n++ {
		if n == most {
			return fmt.Errorf("more than %d %s", most, what)
		}
		if err := one(d); err != nil {
			return err
		}
	}
	return nil
}

// appendFrom appends the next element to a list.
func appendFrom[T any](d *json.Decoder, list *[]T) error {
	var v T
	err := d.Decode(&v)
	*list = append(*list, v)
	return err
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

// Encode returns the profile as a text of at most MaxSize bytes, which docs/profile-format.md
// describes. What is too much is left out: the starts used longest ago, and of the last one
// what it reads last.
func (p *Profile) Encode() []byte {
	for all := slices.Clone(p.Starts); ; {
		text := p.encode(all)
		if len(text) <= MaxSize || len(all) == 0 {
			return text
		}
		last := &all[len(all)-1]
		if last.Reads = last.Reads[:len(last.Reads)/2]; len(all) > 1 || len(last.Reads) == 0 {
			all = all[:len(all)-1]
		}
	}
}

// encode is Encode with some starts.
func (p *Profile) encode(all []Start) []byte {
	f := file{Format: format, Repository: p.Repository, Platform: p.Platform, Starts: starts{}}
	for _, s := range all {
		one := start{Last: s.Last.UTC().Truncate(time.Second), Runs: s.Runs, Paths: pathList{}, Reads: rows{}}
		numbers := map[string]int{}
		for _, r := range s.Reads {
			n, known := numbers[r.Path]
			if !known {
				n = len(one.Paths)
				numbers[r.Path] = n
				if one.Paths = append(one.Paths, r.Path); !utf8.ValidString(r.Path) {
					if one.PathBytes == nil {
						one.PathBytes = pathBytes{}
					}
					one.PathBytes[n] = []byte(r.Path)
				}
			}
			one.Reads = append(one.Reads, row{int64(n), r.Off / Grain, r.Size / Grain, r.After.Milliseconds(), int64(r.Share)})
		}
		f.Starts = append(f.Starts, one)
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	_ = e.Encode(f) // it has nothing that JSON cannot have
	return text.Bytes()
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
	var says struct{ Format string } // another format may have other members
	if err := json.Unmarshal(data, &says); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrFormat, err)
	}
	if says.Format != format {
		return nil, fmt.Errorf("%w: its format is %.40q, not %q", ErrFormat, says.Format, format)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrFormat, err)
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
	if s.Runs < 1 || s.Runs > maxRuns {
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
	var total int64
	for i, r := range s.Reads {
		path, off, size, after, share := r[0], r[1], r[2], r[3], r[4]
		switch {
		case path < 0 || path >= int64(len(s.Paths)):
			return one, fmt.Errorf("read %d is of path %d of %d", i, path, len(s.Paths))
		case off < 0 || off > 1<<40, size < 1 || size > MaxStartBytes/Grain, !isRead(off*Grain, size*Grain):
			return one, fmt.Errorf("read %d is of %d grains from %d", i, size, off)
		case after < 0 || after > maxAfter.Milliseconds():
			return one, fmt.Errorf("read %d is %d ms after the beginning", i, after)
		case share < 0 || share > 100:
			return one, fmt.Errorf("read %d has a share of %d", i, share)
		}
		if total += size * Grain; total > MaxStartBytes {
			return one, fmt.Errorf("it reads more than %d bytes", int64(MaxStartBytes))
		}
		one.Reads = append(one.Reads, Read{Path: s.Paths[path], Off: off * Grain, Size: size * Grain,
			After: time.Duration(after) * time.Millisecond, Share: int(share)})
	}
	return one, nil
}
