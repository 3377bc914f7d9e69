package runner

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrNotBuilt: a program could not be compiled here.
var ErrNotBuilt = errors.New("not built")

// Compile compiles one of the modules below testdata, as which peers are that need much
// to be built, and returns the path of the program. It must be called in the module of
// imgfs. The errors for want of a compiler or a module wrap ErrNotBuilt.
func (r *Runner) Compile(module string, environment ...string) (string, error) {
	program := filepath.Join(r.Dir, "compiled-"+module)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	out, err := exec.CommandContext(r.Ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", errors.Join(r.Ctx.Err(), fmt.Errorf("go env GOMOD: %w", err))
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	r.Logf("compiling testdata/%s, which takes a while the first time", module)
	cmd := exec.CommandContext(r.Ctx, "go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join(root, "testdata", module)
	cmd.Env = append(append(os.Environ(), "GOWORK=off"), environment...)
	cmd.WaitDelay = time.Second
	out, err = cmd.CombinedOutput()
	if err := r.Ctx.Err(); err != nil {
		return "", err
	}
	if err != nil {
		r.Logf("%s", out)
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("%w: testdata/%s: %v: %s", ErrNotBuilt, module, err, lines[len(lines)-1])
	}
	return program, nil
}
