package fs

// TreeVersion is the version of all that decides which tree layers make: merging, the order
// of names, the numbers of inodes, and which attributes a node has. Two programs with the
// same TreeVersion make the same tree of the same layers, node for node, so that a mount may
// be taken over by the other one. TestTreeVersion fails when the tree changes; then this
// number is to be raised.
const TreeVersion = 1
