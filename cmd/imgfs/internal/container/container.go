package container

import (
	"os"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A Container is a command that is to run in the tree of an image.
type Container struct {
	Env  *cli.Env
	Tree *fs.Tree
	// Options are for serving the tree.
	Options *fusefs.Options
	// Spec is the container's: Run decides where its root is, and what namespaces a
	// plain user has.
	Spec    *specs.Spec
	Users   *Users // of FindUsers
	Runtime Runtime
	// Volumes are directories that are made where the image has none, such as for its
	// volumes; with the owner of the container's process.
	Volumes []string
	// Stdin is the container's, or nil: it has none.
	Stdin          *os.File
	Stdout, Stderr *os.File
}

// Users are the users and groups that a container of a plain user has: root is that
// user, and the others are from the ranges that subuid(5) and subgid(5) give. nil are
// those of the machine, as root's containers have them.
type Users struct {
	UIDs, GIDs []specs.LinuxIDMapping
}

// supervisorWord is the only argument of a supervisor.
const supervisorWord = "__supervise"

// IsSupervisor reports whether a command line is that of a supervisor: Supervise is
// what it does.
func IsSupervisor(args []string) bool { return len(args) == 2 && args[1] == supervisorWord }
