package bundle

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/remote/printable"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzLookupUser: whatever passwd and group hold, ids are such as Linux has, and errors
// are harmless to a terminal.
func FuzzLookupUser(f *testing.F) {
	f.Add("bob", passwdText, groupText)
	f.Add("0:wheel", ":::\n\xff\x00\n#\nbob\n", "wheel:x:-1:\n")
	f.Add("-1:\x1b[2J", "", "")
	f.Add("4294967295", "a:x:4294967295:4294967296::/:", "a:x:9999999999999999999:bob")
	f.Fuzz(func(t *testing.T, name, passwd, group string) {
		tree := treeOf(t, layertest.File("etc/passwd", passwd), layertest.File("etc/group", group))
		a, err := lookupUser(t.Context(), tree, &ocispec.ImageConfig{}, &Options{User: name})
		var refused *Error
		switch {
		case err == nil:
			for _, id := range append(a.groups, a.uid, a.gid) {
				if id == math.MaxUint32 {
					t.Errorf("id %d", id)
				}
			}
		case !errors.As(err, &refused), !printable.Harmless(err.Error()), strings.ContainsRune(err.Error(), '\n'):
			t.Errorf("%q", err)
		}
	})
}

// FuzzProgram: no beginning of a program is too odd to look at.
func FuzzProgram(f *testing.F) {
	f.Add([]byte("#!/bin/sh -e\n"))
	f.Add([]byte("#! \t\n"))
	f.Add(append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 80)...))
	f.Add(append([]byte("\x7fELF\x01\x02\x01"), []byte(strings.Repeat("\xff", 80))...))
	f.Fuzz(func(t *testing.T, head []byte) {
		name, _ := interpreterOf(head)
		if len(name) > len(head) {
			t.Errorf("%q of %q", name, head)
		}
		machineOf(head)

	})
}
