package fs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"syscall"
)

// Dump writes the tree one path a line, sorted by path, so that trees can be
// compared with diff. Tabs separate the columns: path, type (f d l c b p), octal
// mode, uid:gid, size (0 but for files and symlinks), mtime in nanoseconds,
// major:minor, the first path of a hard link, symlink target, xattrs with
// values in hex, and, if content, the first 16 digits of the content's
// SHA-256. What does not apply is "-". Newlines and tabs in names are written
// \n and \t, all other bytes as they are.
func (t *Tree) Dump(ctx context.Context, w io.Writer, content bool) error {
	rows, err := t.paths(ctx)
	if err != nil {
		return err
	}
	first := make(map[uint32]string) // path of inodes with several
	bw := bufio.NewWriter(w)
	escape := strings.NewReplacer("\n", `\n`, "\t", `\t`)
	ended := canceled{ctx: ctx}
	for _, r := range rows {
		if ended.now() {
			return ctx.Err()
		}
		in := r.node.inode()
		group, ok := first[r.node.id]
		if !ok && in.nlink > 1 && !in.isDir() {
			group = r.path
			first[r.node.id] = group
		}
		sum := "-"
		if content && in.format() == syscall.S_IFREG {
			var err error
			if sum, err = contentSum(ctx, r.node); err != nil {
				return fmt.Errorf("%s: %w", r.path, err)
			}
		}
		cols := dumpColumns(r.path, r.node, group, sum)
		for i, c := range cols {
			cols[i] = escape.Replace(c)
		}
		if _, err := bw.WriteString(strings.Join(cols, "\t") + "\n"); err != nil {
			return err
		}
	}
	return bw.Flush()
}

// paths returns all paths of the tree in byte order.
func (t *Tree) paths(ctx context.Context) ([]pathNode, error) {
	ended := canceled{ctx: ctx}
	var rows []pathNode
	for path, n := range t.All() {
		if ended.now() {
			return nil, ctx.Err()
		}
		rows = append(rows, pathNode{path, n})
	}
	slices.SortFunc(rows, func(a, b pathNode) int {
		if ended.now() {
			return 0
		}
		return strings.Compare(a.path, b.path)
	})
	return rows, ctx.Err()
}

func dumpColumns(path string, n Node, group, sum string) []string {
	a := n.Attr()
	var typ string
	switch a.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		typ = "f"
	case syscall.S_IFDIR:
		typ, a.Size = "d", 0
	case syscall.S_IFLNK:
		typ = "l"
	case syscall.S_IFCHR:
		typ = "c"
	case syscall.S_IFBLK:
		typ = "b"
	case syscall.S_IFIFO:
		typ = "p"
	}
	var xattrs []string
	for _, x := range n.Xattrs() {
		xattrs = append(xattrs, fmt.Sprintf("%s=%x", x.Name, x.Value))
	}
	// Seconds fill 64 bits, nanoseconds need more.
	mtime := new(big.Int).Mul(big.NewInt(a.ModSec), big.NewInt(1e9))
	mtime.Add(mtime, big.NewInt(int64(a.ModNsec)))
	return []string{
		path, typ, fmt.Sprintf("%o", a.Mode&permBits), fmt.Sprintf("%d:%d", a.UID, a.GID),
		fmt.Sprint(a.Size), mtime.String(), fmt.Sprintf("%d:%d", a.Major, a.Minor),
		orDash(group), orDash(n.Target()), strings.Join(xattrs, ","), sum,
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func contentSum(ctx context.Context, n Node) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, &file{handle: handle{ctx: ctx, n: n}}); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}
