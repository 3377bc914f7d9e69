package bundle

import (
	"context"
	"debug/elf"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// headSize is how much of a program is looked at: what the kernel looks at for "#!", and
// an ELF file's header and program headers.
const headSize = 4096

// checkCommand finds the program that a command names, as the runtime does: along PATH,
// or from the working directory on if the name has a slash. It refuses what is not there
// and what cannot be executed; only what it is sure of.
func checkCommand(ctx context.Context, tree *fs.Tree, name string, env []string, cwd string, mounts []specs.Mount) error {
	var candidates []string
	if strings.Contains(name, "/") {
		candidates = []string{absolute(cwd, name)}
	} else {
		for _, dir := range strings.Split(pathOf(env), ":") {
			candidates = append(candidates, absolute(cwd, dir)+"/"+name)
		}
	}
	var denied error
	for _, c := range candidates {
		if slices.ContainsFunc(mounts, func(m specs.Mount) bool { return below(c, m.Destination) }) {
			return nil // what lies there is not the image's
		}
		n, err := tree.Lookup(c, true)
		switch {
		case err != nil:
		case isDir(n):
			denied = refuse(NotExecutable, "command %s: it is a directory", printable.Name(name))
		case !isRegular(n):
			denied = refuse(NotExecutable, "command %s: it is not a file", printable.Name(name))
		case n.Mode()&0o111 == 0:
			denied = refuse(NotExecutable, "command %s: it is not executable", printable.Name(name))
		default:
			return checkProgram(ctx, tree, n, name, mounts)
		}
	}
	if denied != nil {
		return denied
	}
	if strings.Contains(name, "/") {
		return refuse(NotFound, "command %s: it is not in the image", printable.Name(name))
	}
	return refuse(NotFound, "command %s: no directory of PATH has it in the image", printable.Name(name))
}

// absolute returns the path that name is in dir. It keeps "..", which a symlink before it
// may lead elsewhere.
func absolute(dir, name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	return strings.TrimSuffix(dir, "/") + "/" + name
}

func pathOf(env []string) string {
	for _, s := range env {
		if value, ok := strings.CutPrefix(s, "PATH="); ok {
			return value
		}
	}
	return ""
}

// checkProgram refuses a script or a program whose interpreter is not in the image, a
// program for another processor, and what is neither.
func checkProgram(ctx context.Context, tree *fs.Tree, n fs.Node, name string, mounts []specs.Mount) error {
	head := make([]byte, min(headSize, n.Attr().Size))
	if k, err := n.ReadAt(ctx, head, 0); k < len(head) && err != nil && err != io.EOF {
		return err
	}
	if !strings.HasPrefix(string(head), "#!") && !strings.HasPrefix(string(head), elf.ELFMAG) && !emulatesAnything() {
		return refuse(NotExecutable, "command %s: it is neither a program nor a script that begins with #!", printable.Name(name))
	}
	interpreter, what := interpreterOf(head)
	if machine, ok := machineOf(head); ok && !executes(machine) {
		return refuse(BadPlatform, "command %s: it is a program for %s, which this machine does not execute", printable.Name(name), machine)
	}
	if !path.IsAbs(interpreter) || slices.ContainsFunc(mounts, func(m specs.Mount) bool { return below(interpreter, m.Destination) }) {
		return nil
	}
	if _, err := tree.Lookup(interpreter, true); err != nil {
		return refuse(NotFound, "command %s: %s %s is not in the image", printable.Name(name), what, printable.Name(interpreter))
	}
	return nil
}

// interpreterOf returns the file that the kernel starts in a program's place or before it,
// and what to call it: of a script that of "#!", of an ELF file its dynamic linker.
func interpreterOf(head []byte) (name, what string) {
	if rest, ok := strings.CutPrefix(string(head[:min(256, len(head))]), "#!"); ok {
		line, _, whole := strings.Cut(rest, "\n")
		fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
		if len(fields) == 0 || !whole && len(fields) == 1 {
			return "", "" // it may go on
		}
		return strings.TrimRight(fields[0], "\x00"), "its interpreter"
	}
	return linkerOf(head), "its dynamic linker"
}
