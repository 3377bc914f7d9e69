package show

import "testing"

// named is a document of one name.
type named struct {
	Path      string    `json:"path"`
	PathBytes NameBytes `json:"pathBytes,omitempty"`
}

// TestUnmarshalNames has documents of others, whose bytes are not those of the
// name.
func TestUnmarshalNames(t *testing.T) {
	for text, want := range map[string]string{
		`{"path":"a"}`:                                 "a",
		`{"path":"a\ufffd","pathBytes":"Yf8="}`:        "a\xff",
		`{"path":"b\ufffd","pathBytes":"Yf8="}`:        "b\ufffd",
		`{"path":"a","pathBytes":"Yg=="}`:              "a",
		`{"path":"a\ufffd","pathBytes":"Ye+/vQ=="}`:    "a\ufffd",
		`{"path":"a\ufffd\ufffd","pathBytes":"Yf/+"}`:  "a\xff\xfe",
		`{"path":"\ufffd","pathBytes":"/w==","x":[1]}`: "\xff",
	} {
		var got named
		if err := Unmarshal([]byte(text), &got); err != nil || got.Path != want || got.PathBytes != "" {
			t.Errorf("%s: got %q, error %v, want %q", text, got.Path, err, want)
		}
	}
	var got named
	if err := Unmarshal([]byte(`{"path":"a","pathBytes":"?"}`), &got); err == nil {
		t.Errorf("bytes that are no base64: got %+v, want an error", got)
	}
}
