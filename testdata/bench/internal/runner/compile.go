package runner

import (
	"os"
	"path/filepath"

	"github.com/imgfs/imgfs/testdata/engines"
)

// ErrNotBuilt: a program could not be compiled here.
var ErrNotBuilt = engines.ErrNotBuilt

// Compile compiles one of the modules below testdata, as which peers are that need much
// to be built, and returns the path of the program. It must be called in the module of
// imgfs. The errors for want of a compiler or a module wrap ErrNotBuilt.
func (r *Runner) Compile(module string, environment ...string) (string, error) {
	program := filepath.Join(r.Dir, "compiled-"+module)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	r.Logf("compiling testdata/%s, which takes a while the first time", module)
	said, err := engines.GoBuild(r.Ctx, module, environment, "-o", program, ".")
	if err != nil {
		if said != "" {
			r.Logf("%s", said)
		}
		return "", err
	}
	return program, nil
}
