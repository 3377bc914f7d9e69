package fs

// Uncounted returns a tree that does not count what is read from it.
func Uncounted(t *Tree) *Tree {
	u := *t
	u.counts = nil
	return &u
}

// LimitDigests sets how many bytes the tables of digests may take.
func LimitDigests(t *Tree, limit int64) { t.digests.limit = limit }

// DigestTables returns how many layers' digests are in memory.
func DigestTables(t *Tree) int { return len(t.digests.lru) }
