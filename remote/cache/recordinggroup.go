package cache

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
func (s *recordingGroup) rule() rule {
	spare := make(map[digest.Digest]bool, len(s.have))
	for d := range s.have {
		spare[d] = true
	}
	return rule{before: uint32(s.began.Unix()) + 1, spare: spare}
}

// beginRecording counts a recording that begins.
func (c *directory) beginRecording() {
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.group.begin(time.Now())
}

// endRecording counts one that ends, with the blob that it brought, if any.
func (c *directory) endRecording(d digest.Digest) {
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.group.active--
	b.group.ended = time.Now()
	if d != "" {
		b.group.have[d] = true
	}
}

// newImage says that what is recorded next belongs to another image.
func (c *directory) newImage() {
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.group.active == 0 {
		b.group.ended = time.Time{}
	}
}

// recordingRule returns what recordings may remove now.
func (c *directory) recordingRule() rule {
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.group.rule()
}
