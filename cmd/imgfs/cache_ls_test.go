package main

import "testing"

func TestVerifiedLayers(t *testing.T) {
	for want, how := range map[string][]string{
		"": nil, "whole": {"whole"}, "not yet": {"not", "not"}, "by chunk": {"chunk", "chunk", "chunk"},
		"1 publisher only, 2 by chunk, 3 whole": {"whole", "chunk", "whole", "publisher", "chunk", "whole"},
		"1 wrong, 1 not yet":                    {"not", "wrong"},
	} {
		var layers []cachedLayer
		for _, v := range how {
			layers = append(layers, cachedLayer{Verified: v})
		}
		if got := verifiedLayers(layers); got != want {
			t.Errorf("%q: got %q, want %q", how, got, want)
		}
	}
}
