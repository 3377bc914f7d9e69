package fs_test

import "testing"

// TestProvenanceOfMerge has no indexes, and a file that is sparse.
func TestProvenanceOfMerge(t *testing.T) {
	tree := merge(t, layer(sparse("s", 100, "", nil)))
	n, err := tree.Lookup("s", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := n.Provenance(); !ok {
		t.Error("no provenance")
	}
	if _, ok, err := n.ContentDigest(); ok || err != nil {
		t.Errorf("ContentDigest: %v, %v", ok, err)
	}
}
