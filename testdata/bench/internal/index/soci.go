package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const sociPeer = "SOCI ztoc"

// A ztoc is what testdata/sociztoc says of a layer.
type ztoc struct {
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"` // of the index
}

// errNotBuilt: SOCI's builder could not be compiled here.
var errNotBuilt = errors.New("not built")

// soci compares making an index with SOCI's way. Its builder reads the layer
// twice and takes no digest of files or of the tar.
func (b *bench) soci() error {
	for _, in := range b.inputs {
		var theirs []ztoc
		var missing string
		ours, err := inTurns(b.ctx, min(b.runs, 3), []task{
			{name: "our pass", run: func() error {
				_, err := build(b.ctx, &in.Input)
				return err
			}},
			{name: "SOCI's builder", run: func() error {
				z, err := b.buildZtoc(in)
				if errors.Is(err, errNotBuilt) {
					missing = err.Error()
					return nil
				}
				theirs = append(theirs, z)
				return err
			}},
		})
		if err != nil {
			return fmt.Errorf("%s: %w", in.Name, err)
		}
		f := figure{Name: in.Name, Unit: "s", Ours: ours[0].wall.Seconds(), Peer: sociPeer, Missing: missing, WantRatio: 6}
		if missing == "" {
			f.PeerValue = median(theirs, func(z ztoc) float64 { return z.Seconds })
		}
		b.add(f)
	}
	return nil
}

// ztoc returns what SOCI's builder made of an input, the last time it did.
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
	b.logf("SOCI's ztoc of %s", in.Name)
	cmd := exec.CommandContext(b.ctx, program, in.Path)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return ztoc{}, fmt.Errorf("SOCI's builder: %w", err)
	}
	var z ztoc
	if err := json.Unmarshal(out, &z); err != nil {
		return ztoc{}, fmt.Errorf("SOCI's builder: %w", err)
	}
	b.ztocs[in.Name] = z
	return z, nil
}

// compileSOCI compiles SOCI's builder. The errors for want of a compiler or
// a module are errNotBuilt.
func (b *bench) compileSOCI() (string, error) {
	root, err := b.moduleDir()
	if err != nil {
		return "", err
	}
	b.logf("compiling SOCI's builder, which takes a while the first time")
	program := filepath.Join(b.dir, "sociztoc")
	cmd := exec.CommandContext(b.ctx, "go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join(root, "testdata", "sociztoc")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOWORK=off")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err := b.ctx.Err(); err != nil {
		return "", err
	}
	if err != nil {
		b.logf("%s", out)
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("%w: %s", errNotBuilt, lines[len(lines)-1])
	}
	return program, nil
}
