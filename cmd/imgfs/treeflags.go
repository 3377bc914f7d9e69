package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/spf13/pflag"
)

// treeFlags are the flags of all commands that read the tree of an image without
// mounting it. nil are none of them given.
type treeFlags struct {
	layer string // as the user writes it; "": the whole image
}

// newTreeFlags declares the flags.
func newTreeFlags(f *pflag.FlagSet) *treeFlags {
	t := new(treeFlags)
	f.Var((*layerFlag)(&t.layer), "layer", "`N` the tree after layer N, or a digest (1: the base)")
	return t
}

// choose leaves out the layers that are not wanted.
func (t *treeFlags) choose(r *image.Resolved) error {
	if t == nil || t.layer == "" {
		return nil
	}
	if n, err := strconv.Atoi(t.layer); err == nil && len(t.layer) < minDigits {
		return r.Upto(n)
	}
	found := 0
	for i, l := range r.Layers {
		if t.names(l.Digest().String()) || t.names(l.DiffID.String()) {
			if found > 0 && r.Layers[found-1].Digest() != l.Digest() {
				return cli.WithHint(fmt.Errorf("%s: more than one layer is called %s", r.Name(), t.layer), "more digits of its digest")
			}
			found = i + 1
		}
	}
	if found == 0 {
		return fmt.Errorf("%s: no layer has the digest %s", r.Name(), t.layer)
	}
	return r.Upto(found)
}

// minDigits is how many digits of a digest name a layer at least: fewer are a number.
const minDigits = 6

// names reports whether the flag is the beginning of a digest.
func (t *treeFlags) names(digest string) bool {
	_, hex, _ := strings.Cut(digest, ":")
	return strings.HasPrefix(digest, t.layer) || strings.HasPrefix(hex, t.layer)
}

// A layerFlag is the value of --layer: the number of a layer, or the beginning of its
// digest or diff_id.
type layerFlag string

// String implements pflag.Value.
func (l *layerFlag) String() string { return string(*l) }

// Type implements pflag.Value.
func (l *layerFlag) Type() string { return "string" }

// Set implements pflag.Value.
func (l *layerFlag) Set(s string) error {
	_, err := strconv.ParseUint(s, 10, 16)
	hex := strings.TrimPrefix(s, "sha256:")
	digits := len(hex) >= minDigits && strings.Trim(hex, "0123456789abcdef") == ""
	if !digits && (err != nil || len(s) >= minDigits || s == "0") {
		return fmt.Errorf("it is neither the number of a layer, from 1 for the base, nor %d or more digits of its digest", minDigits)
	}
	*l = layerFlag(s)
	return nil
}
