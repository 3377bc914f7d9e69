package index

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

const sociPeer = "SOCI ztoc"

// A ztoc is the output of testdata/sociztoc for a layer.
type ztoc struct {
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"` // of the index
}

// soci compares making an index with SOCI's way. Its builder reads the layer
// twice and takes no digest of files or of the tar.
func (b *bench) soci(in *input) error {
	f := figures.Figure{Name: in.Name, Unit: "s", Peer: sociPeer, AtLeast: 6}
	var theirs []float64
	ours, err := b.InTurns(min(b.Runs, 3), []runner.Task{
		{Name: "our pass", Run: func() error {
			_, err := makeIndex(b.Ctx, &in.Input)
			return err
		}},
		{Name: "SOCI's builder", Run: func() error {
			z, err := b.buildZtoc(in)
			if errors.Is(err, runner.ErrNotBuilt) {
				f.PeerMissing = err.Error()
				return nil
			}
			theirs = append(theirs, z.Seconds)
			return err
		}},
	})
	if err != nil {
		return err
	}
	if f.Ours = ours[0].Wall.Seconds(); f.PeerMissing == "" {
		f.Theirs = figures.Median(theirs)
	}
	b.Add(f)
	return nil
}

// ztoc returns the last result of SOCI's builder for an input.
func (b *bench) ztoc(in *input) (ztoc, error) {
	if z, ok := b.ztocs[in.Name]; ok {
		return z, nil
	}
	return b.buildZtoc(in)
}

// buildZtoc has SOCI's builder make its index of an input.
func (b *bench) buildZtoc(in *input) (ztoc, error) {
	program, err := b.sociProgram()
	if err != nil {
		return ztoc{}, err
	}
	b.Logf("SOCI's ztoc of %s", in.Name)
	out, err := b.Output(program, in.Path)
	if err != nil {
		return ztoc{}, err
	}
	var z ztoc
	if err := json.Unmarshal([]byte(out), &z); err != nil {
		return ztoc{}, fmt.Errorf("SOCI's builder: %w", err)
	}
	b.ztocs[in.Name] = z
	return z, nil
}
