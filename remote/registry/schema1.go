package registry

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
)

// signedPayload returns what is signed of a signed schema 1 manifest, and what its
// digest is of: the manifest without the signatures, as these say where they were put
// in. It is nil if they do not say. The signatures mean nothing here.
func signedPayload(manifest []byte) []byte {
	var doc struct {
		Signatures []struct {
			Protected string `json:"protected"`
		} `json:"signatures"`
	}
	if json.Unmarshal(manifest, &doc) != nil || len(doc.Signatures) == 0 {
		return nil
	}
	protected, err := decodeURL(doc.Signatures[0].Protected)
	if err != nil {
		return nil
	}
	var format struct {
		Length int    `json:"formatLength"`
		Tail   string `json:"formatTail"`
	}
	if json.Unmarshal(protected, &format) != nil || format.Length < 0 || format.Length > len(manifest) {
		return nil
	}
	tail, err := decodeURL(format.Tail)
	if err != nil {
		return nil
	}
	return slices.Concat(manifest[:format.Length], tail)
}

// decodeURL decodes base64 as JWS has it, padded or not.
func decodeURL(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}
