package starts

import (
	"errors"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// A program is what is started.
type program struct {
	name string // of it, for -only
	what string // for the report
	args []string
}

// A candidate is an image that has programs to start, if it can be had.
type candidate struct {
	name, what string
	programs   []program
	layer      labimage.Layer // that the image is made of; nil for the lab's node image
}

// layout returns the image as a layout.
func (c *candidate) layout(b *bench) (*labimage.Image, error) {
	if c.layer == nil {
		if b.Corpora == "" {
			return nil, errors.New("CORPORA is not set")
		}
		return labimage.Open(filepath.Join(b.Corpora, "built", "node"))
	}
	dir := filepath.Join(b.Work, c.name+"-layout")
	err := runner.Once(dir, func(part string) error {
		_, err := labimage.WriteAs(part, labimage.UsualGzip(), c.layer)
		return err
	})
	if err != nil {
		return nil, err
	}
	return labimage.Open(dir)
}

// candidates are all images.
var candidates = []candidate{
	{"node", "node of the lab", []program{
		{"node", "`node -e 1`", []string{"node", "-e", "1"}},
		{"require", "`node`, express and lodash", []string{"node", "-e", `require("/app/node_modules/express"); require("/app/node_modules/lodash")`}},
		{"perl", "`perl -MPOSIX -e 1`", []string{"perl", "-MPOSIX", "-e", "1"}},
		{"apt", "`apt list`", []string{"apt", "list"}},
		{"bash", "`bash -c true`", []string{"bash", "-c", "true"}},
	}, nil},
	{"python", "Python of this machine", []program{
		{"python", "`python3 -c 'import json,ssl'`", []string{"python3", "-c", "import json,ssl"}},
	}, labimage.Python},
	{"curl", "curl of this machine", []program{
		{"curl", "`curl --version`", []string{"curl", "--version"}},
	}, copyOf("curl")},
	{"golang", "the Go release in use", []program{
		{"version", "`go version`", []string{"go", "version"}},
		{"build", "`go build` of hello world", []string{"go", "build", "-o", "/tmp/hello", "/src/hello.go"}},
	}, labimage.GoToolchain},
}

// copyOf is a program of this machine, with what it is linked to.
func copyOf(name string) labimage.Layer {
	return func(a *labimage.Archive) error {
		path, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		return labimage.Copies(path)(a)
	}
}

// inside starts a program with a tree as its root, in which it has devices and may write
// below /tmp, where the tree has the directories for that.
const inside = `
[ ! -d "$0/dev" ] || mount --rbind /dev "$0/dev"
[ ! -d "$0/proc" ] || mount --rbind /proc "$0/proc"
[ ! -d "$0/tmp" ] || mount -t tmpfs tmp "$0/tmp"
exec chroot "$0" "$@"`

// environment is of all programs.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin", "HOME=/tmp", "LC_ALL=C",
	"PYTHONDONTWRITEBYTECODE=1", "CGO_ENABLED=0", "GO111MODULE=off", "GOTOOLCHAIN=local", "GOTELEMETRY=off",
}

// run runs a program in a tree.
func (b *bench) run(tree string, p program) (time.Duration, error) {
	cmd := b.Command("unshare", append([]string{"--mount", "sh", "-c", inside, tree}, p.args...)...)
	cmd.Env = environment
	begun := time.Now()
	err := b.Finish(cmd)
	return time.Since(begun), err
}
