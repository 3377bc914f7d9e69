package packages

import (
	"context"
	"fmt"

	"github.com/imgfs/imgfs/fs"
)

// readAPK reads apk's database of what is installed: lines of a letter, a colon and a
// value, and an empty line behind each package.
func readAPK(ctx context.Context, _ *fs.Tree, _ string, n fs.Node) ([]Package, error) {
	var all []Package
	var p Package
	fields := 0
	end := func() error {
		done, empty := p, fields == 0
		p, fields = Package{}, 0
		switch {
		case empty:
			return nil
		case done.Name == "" || done.Version == "":
			return fmt.Errorf("%w: no name (P) or no version (V) in the package that ends here", ErrFormat)
		}
		var err error
		all, err = add(all, done)
		return err
	}
	err := eachLine(ctx, n, func(_ int, line []byte) error {
		if len(line) == 0 {
			return end()
		}
		if len(line) < 2 || line[1] != ':' || line[0] < 'A' || line[0] > 'z' {
			return fmt.Errorf("%w: no field", ErrFormat)
		}
		fields++
		switch value := line[2:]; line[0] {
		case 'P':
			p.Name = string(value)
		case 'V':
			p.Version = string(value)
		case 'A':
			p.Arch = string(value)
		}
		return nil
	})
	if err == nil {
		err = end()
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}
