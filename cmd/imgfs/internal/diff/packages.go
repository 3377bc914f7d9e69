package diff

import (
	"bufio"
	"io"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/fs/packages"
	"github.com/imgfs/imgfs/remote/printable"
)

// A Package is a package that changed, as --packages --json prints it. docs/json.md has
// its members.
type Package struct {
	Manager   packages.Kind       `json:"manager"`
	Change    packages.ChangeKind `json:"change"`
	Name      string              `json:"name"`
	NameBytes show.NameBytes      `json:"nameBytes,omitempty"`
	Arch      string              `json:"arch,omitempty"` // the new one, if it is still there
	OldArch   string              `json:"oldArch,omitempty"`
	Old       string              `json:"old,omitempty"` // versions
	New       string              `json:"new,omitempty"`
}

// NewPackage returns what is printed of a change.
func NewPackage(manager packages.Kind, c packages.Change) Package {
	p := Package{Manager: manager, Change: c.Kind, Name: c.Name, Arch: c.New.Arch, Old: c.Old.Version, New: c.New.Version}
	switch {
	case c.Kind == packages.Removed:
		p.Arch = c.Old.Arch
	case c.Kind != packages.Added && c.Old.Arch != c.New.Arch:
		p.OldArch = c.Old.Arch
	}
	return p
}

// PrintPackages prints changes, in a table for each package manager, whose line begins as
// those of files do.
func PrintPackages(out io.Writer, c Config, changes []Package) error {
	r := &Reporter{Config: c, w: bufio.NewWriter(out)}
	for len(changes) > 0 {
		n := 0
		t := show.NewTable(c.Width, show.Column{Least: 12}, show.Column{Least: 12}, show.Column{Drop: 2}, show.Column{Drop: 1})
		for n < len(changes) && changes[n].Manager == changes[0].Manager {
			packageRow(t, changes[n])
			n++
		}
		if err := r.writeLine(printable.Cell(string(changes[0].Manager)) + ":"); err != nil {
			return err
		}
		if err := t.Print(r.w); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return r.w.Flush()
}

func packageRow(t *show.Table, p Package) {
	letter := "~"
	switch p.Change {
	case packages.Added:
		letter = "+"
	case packages.Removed:
		letter = "-"
	}
	t.Row(letter+" "+printable.Cell(p.Name), fromTo(p.Old, p.New), fromTo(p.OldArch, p.Arch), printable.Cell(string(p.Change)))
}

// fromTo writes what was and what is; one of them if there is no other.
func fromTo(old, new string) string {
	switch {
	case old == "" || old == new:
		return printable.Cell(new)
	case new == "":
		return printable.Cell(old)
	}
	return printable.Cell(old) + " -> " + printable.Cell(new)
}
