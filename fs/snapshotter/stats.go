package snapshotter

import "maps"

// Stats count what a snapshotter has done since it was opened. All but Chains and Mounted
// only grow.
type Stats struct {
	Chains  int // lazy chains that snapshots need
	Mounted int // of these those that are mounted, as far as this process knows

	Lazy          uint64 // answers of Prepare that nothing has to be unpacked
	Fallbacks     map[Reason]uint64
	Mounts        uint64 // chains that were mounted
	Mended        uint64 // of these those in whose place was a tree that nobody served any more
	MountFailures uint64
	Unmounts      uint64
	Passes        uint64 // over the layers of an image
	PassFailures  uint64
	Waits         uint64 // calls of Stat that had to wait for a pass
}

// Stats returns what has been counted.
func (s *Snapshotter) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.stats
	n.Fallbacks = maps.Clone(n.Fallbacks)
	n.Chains = len(s.chains)
	for _, c := range s.chains {
		if c.mounted {
			n.Mounted++
		}
	}
	return n
}

// count changes what is counted.
func (s *Snapshotter) count(change func(n *Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stats.Fallbacks == nil {
		s.stats.Fallbacks = map[Reason]uint64{}
	}
	change(&s.stats)
}
