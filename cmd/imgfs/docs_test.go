package main

import (
	"os"
	"path/filepath"
	"testing"
)

// readDoc returns a file of the repository, by its place in it.
func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
