package remote

import (
	"bytes"
	"encoding/json"
	"fmt"
)

const (
	// maxAnnotations is how many annotations a manifest, or one descriptor, may
	// have. In memory each takes up to fifteen times its JSON.
	maxAnnotations = 1024
	// maxAllAnnotations is how many a manifest may have with those of its layers.
	maxAllAnnotations = 32 << 10
)

// annotations are those of a manifest or descriptor. Those that are no text say
// nothing, as nobody may have written them.
//
// OCI image-spec, annotations.md: "Annotations MUST be a key-value map where both
// the key and value MUST be strings."
type annotations map[string]string

// UnmarshalJSON implements json.Unmarshaler.
func (a *annotations) UnmarshalJSON(text []byte) error {
	*a = nil
	dec := json.NewDecoder(bytes.NewReader(text))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return err
	}
	*a = annotations{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		var said string
		if len(value) == 0 || value[0] != '"' || json.Unmarshal(value, &said) != nil {
			continue
		}
		if (*a)[key.(string)] = said; len(*a) > maxAnnotations {
			return fmt.Errorf("more than %d annotations", maxAnnotations)
		}
	}
	return nil
}
