package directory

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// A recordingGroup is a run of recordings that have the same claim to room: the layers
// of an image, as a rule. One does not remove what another has brought.
type recordingGroup struct {
	began  time.Time
	active int
	ended  time.Time // the last one
	have   map[digest.Digest]bool
}

const (
	groupPause = 10 * time.Second
	groupTime  = 10 * time.Minute
)

// begin counts a recording that begins.
func (s *recordingGroup) begin(now time.Time) {
	if s.active == 0 && now.Sub(s.ended) > groupPause || now.Sub(s.began) > groupTime {
		s.began, s.have = now, map[digest.Digest]bool{}
	}
	s.active++
}

// rule returns what recordings of the group may remove.
func (s *recordingGroup) rule() Rule {
	spare := make(map[digest.Digest]bool, len(s.have))
	for d := range s.have {
		spare[d] = true
	}
	return Rule{before: uint32(s.began.Unix()) + 1, Spare: spare}
}

// BeginRecording counts a recording that begins.
func (c *Dir) BeginRecording() {
	b := c.Room
	b.mu.Lock()
	defer b.mu.Unlock()
	b.group.begin(time.Now())
}

// EndRecording counts one that ends, with the blob that it brought, if any.
func (c *Dir) EndRecording(d digest.Digest) {
	b := c.Room
	b.mu.Lock()
	defer b.mu.Unlock()
	b.group.active--
	b.group.ended = time.Now()
	if d != "" {
		b.group.have[d] = true
	}
}

// NewImage says that what is recorded next belongs to another image.
func (c *Dir) NewImage() {
	b := c.Room
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.group.active == 0 {
		b.group.ended = time.Time{}
	}
}

// RecordingRule returns what recordings may remove now.
func (c *Dir) RecordingRule() Rule {
	b := c.Room
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.group.rule()
}
