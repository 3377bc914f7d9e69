package image

import (
	"github.com/imgfs/imgfs/layerindex"
)

// A Voucher is what makes an index of a layer believed.
type Voucher string

const (
	// VouchedHere: this user's imgfs made it of all of the layer's bytes, which had
	// the layer's digest.
	VouchedHere Voucher = "local"
	// VouchedByManifest: the image's manifest has its digest.
	VouchedByManifest Voucher = "manifest"
	// VouchedByRegistry: nothing does but the registry that it came from, until the
	// whole layer has been read and compared.
	VouchedByRegistry Voucher = "registry"
)

// An IndexUse says which index a layer is read by.
type IndexUse struct {
	// Origin is what made it: "imgfs", "estargz", "zstd:chunked" or "soci".
	Origin string `json:"origin"`
	// Vouched says why it is believed.
	Vouched Voucher `json:"vouched"`
	// From is where it came from, as REPOSITORY@DIGEST; "" if it was made here or is
	// a part of the layer.
	From string `json:"from,omitempty"`
	// Lost names what the format of the index cannot say, and is shown otherwise than
	// the layer has it.
	Lost string `json:"lost,omitempty"`
}

// useHere is the use of an index that was made here.
func useHere() IndexUse {
	return IndexUse{Origin: layerindex.OriginPass.String(), Vouched: VouchedHere}
}

// useOf returns the use of an index that somebody else made.
func useOf(x *layerindex.Index, by Voucher, from string) IndexUse {
	return IndexUse{Origin: x.Origin().String(), Vouched: by, From: from, Lost: x.Losses().String()}
}

// String names it for messages.
func (u IndexUse) String() string {
	if u.From == "" {
		return u.Origin
	}
	return u.Origin + " " + u.From
}
