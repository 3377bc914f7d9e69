package tools

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// errWrong: a command gave something else than its peer.
var errWrong = errors.New("the outputs differ")

// members describe what a tar has, by path: kind, mode, owner, and the digest of the
// content or the target of the symlink. A hard link is described as its target is. The
// root is left out, as not all tars have it.
type members map[string]string

// readMembers reads a tar to its end.
func readMembers(r io.Reader) (members, error) {
	all, links := members{}, map[string]string{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			for name, target := range links {
				all[name] = all[target]
			}
			_, err = io.Copy(io.Discard, r) // else the program that writes gets SIGPIPE
			return all, err
		}
		if err != nil {
			return nil, err
		}
		name := clean(h.Name)
		if name == "" {
			continue
		}
		content := h.Linkname
		switch h.Typeflag {
		case tar.TypeLink:
			links[name] = clean(h.Linkname)
			continue
		case tar.TypeReg, tar.TypeGNUSparse:
			sum := sha256.New()
			if _, err := io.Copy(sum, t); err != nil {
				return nil, err
			}
			content = fmt.Sprintf("%d %x", h.ModTime.Unix(), sum.Sum(nil))
		}
		mode := h.Mode & 0o7777
		if h.Typeflag == tar.TypeSymlink {
			mode = 0o777 // the kernel knows no other
		}
		all[name] = fmt.Sprintf("%c %o %d:%d %d,%d %s", h.Typeflag, mode, h.Uid, h.Gid, h.Devmajor, h.Devminor, content)
	}
}

// clean returns a path from the root, without a slash before it.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// differ returns the paths that two tars do not have alike, in order.
func (m members) differ(other members) []string {
	var names []string
	for name := range m {
		if m[name] != other[name] {
			names = append(names, name)
		}
	}
	for name := range other {
		if _, ok := m[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// membersOf runs a program that writes a tar.
func (b *bench) membersOf(args ...string) (members, error) {
	r, w := io.Pipe()
	cmd := b.Command(args[0], args[1:]...)
	cmd.Stdout = w
	done := make(chan error, 1)
	go func() {
		err := b.Finish(cmd)
		w.CloseWithError(err)
		done <- err
	}()
	all, err := readMembers(r)
	r.CloseWithError(err)
	return all, errors.Join(err, <-done)
}

// same compares the tar that a program writes with an unpacked image.
func (b *bench) same(t *tree, args ...string) error {
	all, err := b.membersOf(args...)
	if err != nil {
		return err
	}
	if d := t.members.differ(all); len(d) > 0 {
		return fmt.Errorf("%w: %q: %d paths, the first is %q: %q, want %q", errWrong, args, len(d), d[0], all[d[0]], t.members[d[0]])
	}
	return nil
}

// lines runs a program and returns its lines in order, with the paths in them as from
// the root: each root that they may begin with is cut.
func (b *bench) lines(end string, roots []string, args ...string) ([]string, error) {
	out, err := b.Output(args[0], args[1:]...)
	return sortedLines(out, end, roots), err
}

func sortedLines(out, end string, roots []string) []string {
	lines := map[string]bool{}
	for line := range strings.SplitSeq(out, end) {
		before, name := "", line
		if i := strings.Index(line, "  "); i == 64 || i == 65 { // after a sum
			before, name = line[:i+2], line[i+2:]
		} else if n, rest, ok := strings.Cut(line, "\t"); ok && strings.Trim(n, "0123456789") == "" { // after a size
			before, name = n+"\t", rest
		}
		for _, root := range roots {
			if rest, ok := strings.CutPrefix(name, root); ok {
				name = rest
				break
			}
		}
		if name = strings.TrimPrefix(name, "/"); before+name != "" {
			lines[before+name] = true
		}
	}
	return slices.Sorted(maps.Keys(lines))
}

// alike compares the lines of two programs.
func (b *bench) alike(end string, roots []string, ours, theirs []string) error {
	got, err := b.lines(end, roots, ours...)
	if err != nil {
		return err
	}
	want, err := b.lines(end, roots, theirs...)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		for _, line := range want {
			if _, ok := slices.BinarySearch(got, line); !ok {
				return fmt.Errorf("%w: %q has not %q, which %q has", errWrong, ours, line, theirs)
			}
		}
		return fmt.Errorf("%w: %q has %d lines, %q has %d", errWrong, ours, len(got), theirs, len(want))
	}
	return nil
}
