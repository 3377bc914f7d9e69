package remote_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote"
)

func TestHistory(t *testing.T) {
	for _, c := range []struct {
		name, config string
		layers       int
		want         string // LAYER COMMAND, the first step first
		warning      string
	}{
		{"fits", `{"history":[{"created_by":"a"},{"created_by":"b","empty_layer":true},{"created_by":"c"}]}`, 2, "0 a|-1 b|1 c", ""},
		{"absent", `{}`, 2, "0 |1 ", "does not tell"},
		{"null", `{"history":null}`, 1, "0 ", "does not tell"},
		{"no layers", `{"history":[{"created_by":"a","empty_layer":true}]}`, 0, "-1 a", ""},
		{"nothing at all", `{}`, 0, "", ""},
		{"shorter", `{"history":[{"created_by":"b"},{"created_by":"e","empty_layer":true}]}`, 2, "0 |1 b|-1 e", "tells of 1 layer, and it has 2"},
		{"longer", `{"history":[{"created_by":"a"},{"created_by":"b"},{"created_by":"c"}]}`, 1, "-1 a|-1 b|0 c", "tells of 3 layers, and it has 1"},
		{"no list", `{"history":7}`, 1, "0 ", "cannot be read: "},
		{"no objects", `{"history":[7,null,{"created_by":"c"}]}`, 3, "0 |1 |2 c", "1 step of"},
		{"of another kind", `{"history":[{"created_by":["a"],"empty_layer":true},{"created_by":"b"}]}`, 1, "-1 |0 b", "1 step of"},
		{"no time", `{"history":[{"created":"yesterday","created_by":"b"}]}`, 1, "0 b", ""},
		{"very long", `{"history":[{}` + strings.Repeat(",{}", 20000) + `]}`, 1, "0 ", "has 20001 steps"},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := &remote.Image{Config: []byte(c.config), Layers: make([]remote.Layer, c.layers)}
			steps, warning := img.History()
			var words []string
			for _, s := range steps {
				words = append(words, fmt.Sprint(s.Layer, " ", s.CreatedBy))
			}
			if got := strings.Join(words, "|"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if !strings.Contains(warning, c.warning) || (warning == "") != (c.warning == "") {
				t.Errorf("got the warning %q, want %q", warning, c.warning)
			}
		})
	}
}
