package show_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
)

func TestArray(t *testing.T) {
	for n := range 3 {
		var b bytes.Buffer
		a := show.NewArray(&b)
		for i := range n {
			if err := a.Add(map[string]int{"i": i}); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		var got []struct{ I int }
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || len(got) != n {
			t.Fatalf("%d elements: %s: %v", n, b.Bytes(), err)
		}
		for i, e := range got {
			if e.I != i {
				t.Errorf("element %d is %d", i, e.I)
			}
		}
	}
}
