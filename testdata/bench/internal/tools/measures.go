package tools

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/network"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// tar measures writing the whole tree as one tar.
func (b *bench) tar() error {
	tree, err := b.tree()
	if err != nil {
		return err
	}
	crane, noCrane, err := b.look()
	if err != nil {
		return err
	}
	podman, err := b.podman()
	if err != nil {
		return err
	}
	cold, empty := filepath.Join(b.Dir, "cold"), filepath.Join(b.Dir, "empty")
	if _, err := b.indexed("cold", b.near); err != nil {
		return err
	}
	mine := func(cache string) []string { return b.command(cache, "tar", b.near) }
	ofMount := []string{"tar", "cf", "-", "-C", podman.dir, "."}
	export := []string{crane, "export", b.near, "-"}
	const first, second, third = "`imgfs tar`, first", "`imgfs tar`, cold", "`imgfs tar`, warm"
	tasks := []runner.Task{b.task(first, mine(empty)...), b.task(second, mine(cold)...), b.task(third, mine(b.cache)...)}
	tasks[0].Before = func() error { return os.RemoveAll(empty) }
	tasks[1].Before = func() error { return network.ForgetBlobs(cold) }

	// What is compared here is warm then.
	if err := b.same(tree, mine(b.cache)...); err != nil {
		return err
	}
	if noCrane == "" {
		all, err := b.membersOf(export...)
		if err != nil {
			return err
		}
		b.Note("`crane export` writes %d of %d paths otherwise than an unpack has them, `imgfs tar` none", len(tree.members.differ(all)), len(tree.members))
		tasks = append(tasks, b.task("`crane export`", export...))
	}
	if podman.lacks == "" {
		if err := b.same(tree, ofMount...); err != nil {
			return err
		}
		b.Note("`podman pull` took %s, once, before `podman image mount` and `tar`", figures.Number(podman.pulled.Seconds(), "s"))
		tasks = append(tasks, b.task("tar of `podman image mount`", ofMount...))
	}
	took, err := b.turns(tasks...)
	if err != nil {
		return err
	}
	for _, ours := range []string{first, second, third} {
		b.row(took, ours, "`crane export`", noCrane, "")
	}
	b.row(took, third, "tar of `podman image mount`", podman.lacks, "")
	return nil
}

// needle is text that a few files of an image have.
const needle = `NAME="`

// search measures find, du and grep on the whole image.
func (b *bench) search() error {
	tree, err := b.tree()
	if err != nil {
		return err
	}
	if err := b.warmUp(); err != nil {
		return err
	}
	return b.With(b.cache, b.near, nil, func(m *runner.Mount) error {
		roots := []string{b.near + ":", tree.dir, m.Dir}
		for _, c := range []struct {
			name               string
			ours, theirs, same []string // same is added to both where they are compared
		}{
			{name: "find", ours: b.command(b.cache, "find", b.near), theirs: []string{"find"}},
			{name: "du -s", ours: b.command(b.cache, "du", "-s", b.near), theirs: []string{"du", "-s"}, same: []string{"--inodes"}},
			{name: "grep -r", ours: b.command(b.cache, "grep", "-rlF", needle, b.near), theirs: []string{"grep", "-rlF", needle}},
		} {
			ofTree, ofMount := append(slices.Clone(c.theirs), tree.dir), append(slices.Clone(c.theirs), m.Dir)
			for _, theirs := range [][]string{ofTree, ofMount} {
				if err := b.alike("\n", roots, append(slices.Clone(c.ours), c.same...), append(slices.Clone(theirs), c.same...)); err != nil {
					return err
				}
			}
			ours := "`imgfs " + c.name + "`"
			took, err := b.turns(b.task(ours, c.ours...), b.task("GNU, unpacked", ofTree...), b.task("GNU, warm imgfs mount", ofMount...))
			if err != nil {
				return err
			}
			b.row(took, ours, "GNU, unpacked", "", "")
			b.row(took, ours, "GNU, warm imgfs mount", "", "")
		}
		return nil
	})
}

// warmUp has all content of node in the cache.
func (b *bench) warmUp() error { return b.discard(b.command(b.cache, "tar", b.near)...) }

// copy measures copying the whole tree to the disk, with all that belongs to files.
func (b *bench) copy() error {
	tree, err := b.tree()
	if err != nil {
		return err
	}
	podman, err := b.podman()
	if err != nil {
		return err
	}
	if err := b.warmUp(); err != nil {
		return err
	}
	to := filepath.Join(b.Dir, "copy")
	tasks := []runner.Task{b.task("`imgfs cp -a`, warm", b.command(b.cache, "cp", "-a", b.near+":/", to)...),
		b.task("cp -a of the unpacked tree", "cp", "-a", tree.dir+"/.", to)}
	if podman.lacks == "" {
		tasks = append(tasks, b.task("cp -a of `podman image mount`", "cp", "-a", podman.dir+"/.", to))
	}
	anew := func() error {
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		return os.Mkdir(to, 0o755)
	}
	for i := range tasks {
		tasks[i].Before = anew
		if err := anew(); err != nil {
			return err
		}
		if err := tasks[i].Run(); err != nil {
			return err
		}
		if err := b.same(tree, "tar", "cf", "-", "-C", to, "."); err != nil {
			return fmt.Errorf("%s: %w", tasks[i].Name, err)
		}
	}
	took, err := b.turns(tasks...)
	if err != nil {
		return err
	}
	b.row(took, tasks[0].Name, "cp -a of `podman image mount`", podman.lacks, "")
	b.row(took, tasks[0].Name, "cp -a of the unpacked tree", "", "")
	return os.RemoveAll(to)
}

// sum measures the digests of all files.
func (b *bench) sum() error {
	tree, err := b.tree()
	if err != nil {
		return err
	}
	ours := b.command(b.cache, "sum", "-r", b.near)
	theirs := []string{"sh", "-c", `find "$1" -type f -print0 | xargs -0 sha256sum`, "sh", tree.dir}
	if err := b.alike("\n", []string{b.near + ":", tree.dir}, ours, theirs); err != nil {
		return err
	}
	took, err := b.turns(b.task("`imgfs sum -r`", ours...), b.task("sha256sum of the unpacked tree", theirs...))
	b.row(took, "`imgfs sum -r`", "sha256sum of the unpacked tree", "", "from the indexes: nothing is read")
	return err
}

// diff measures comparing node with an image that is made of it.
func (b *bench) diff() error {
	next, err := b.next()
	if err != nil {
		return err
	}
	if next == nil {
		b.Add(figures.Figure{Name: "`imgfs diff`", Missing: "CORPORA has no built/node2"})
		return nil
	}
	tree, err := b.tree()
	if err != nil {
		return err
	}
	near, far, err := b.push(next, "node2:latest")
	if err != nil {
		return err
	}
	cache, err := b.indexed("diff", b.far, far)
	if err != nil {
		return err
	}
	other, err := b.unpack("node2", next)
	if err != nil {
		return err
	}
	ours := func(cache string, more ...string) []string {
		return append(b.command(cache, "diff", b.far, far), more...)
	}
	names, err := b.printed(ours(cache, "--name-only", "-z"))
	if err != nil {
		return err
	}
	found, want := sortedLines(names, "\x00", nil), tree.members.differ(other.members)
	for i := range found {
		found[i] = clean(found[i])
	}
	for _, name := range want {
		if !slices.Contains(found, name) {
			return fmt.Errorf("%w: imgfs diff has not %q", errWrong, name)
		}
	}
	b.Note("%d paths differ between the unpacked images, `imgfs diff` names %d", len(want), len(found))
	total := float64(b.node.Size() + next.Size())
	share := func(cache string) (float64, time.Duration, error) {
		begun := time.Now()
		n, err := b.meter.Blobs(b.Ctx, func() error {
			_, err := b.printed(ours(cache))
			return err
		})
		return 100 * float64(n) / total, time.Since(begun), err
	}
	if err := network.ForgetBlobs(cache); err != nil {
		return err
	}
	moved, _, err := share(cache)
	if err != nil {
		return err
	}
	all, first, err := share(filepath.Join(b.Dir, "diff-first"))
	if err != nil {
		return err
	}
	task := runner.Task{Name: "cold", Before: func() error { return network.ForgetBlobs(cache) }, Run: func() error {
		_, err := b.printed(ours(cache))
		return err
	}}
	took, err := b.turns(task)
	if err != nil {
		return err
	}
	pulls, err := b.pullBoth(near)
	if err != nil {
		return err
	}
	begun := time.Now()
	if _, err := b.printed([]string{"diff", "-rq", "--no-dereference", tree.dir, other.dir}); err != nil {
		return err
	}
	compare := time.Since(begun)
	peer, both := "skopeo copy, umoci unpack, diff -rq", (pulls + tree.took + other.took + compare).Seconds()
	note := fmt.Sprintf("measured once: %.1f s, %.1f s and %.1f s", pulls.Seconds(), (tree.took + other.took).Seconds(), compare.Seconds())
	b.Add(
		figures.Figure{Name: "`imgfs diff`, cold: bytes of blobs, of both images'", Unit: "%", Ours: moved, AtMost: figures.Most(1)},
		figures.Figure{Name: "`imgfs diff`, first: bytes of blobs, of both images'", Unit: "%", Ours: all, Note: "layers that both have are fetched once"},
		figures.Figure{Name: "`imgfs diff`, cold: time", Unit: "s", Ours: took["cold"], Peer: peer, Theirs: both, Note: note},
		figures.Figure{Name: "`imgfs diff`, first: time", Unit: "s", Ours: first.Seconds(), Peer: peer, Theirs: both, Note: "measured once"})
	return os.RemoveAll(other.dir)
}

// printed runs a program for which 1 is a good exit code, too: something differs.
func (b *bench) printed(args []string) (string, error) {
	cmd := b.Command(args[0], args[1:]...)
	var out strings.Builder
	cmd.Stdout = &out
	err := b.Finish(cmd)
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 1 {
		err = b.Ctx.Err()
	}
	return out.String(), err
}

// pullBoth returns how long it takes to copy both images into one layout on disk, where
// the layers that both have come once.
func (b *bench) pullBoth(next string) (time.Duration, error) {
	to := filepath.Join(b.Dir, "pulled")
	var both time.Duration
	for i, from := range []string{b.near, next} {
		took, err := b.Timed("skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "docker://"+from, fmt.Sprintf("oci:%s:%d", to, i))
		if err != nil {
			return 0, err
		}
		both += took
	}
	return both, os.RemoveAll(to)
}

// moved measures what commands fetch that need nothing but indexes.
func (b *bench) moved() error {
	cache, err := b.indexed("moved", b.far)
	if err != nil {
		return err
	}
	for _, c := range [][]string{{"history"}, {"du", "--layers"}, {"find"}, {"sum", "-r"}} {
		begun := time.Now()
		n, err := b.meter.Blobs(b.Ctx, func() error { return b.discard(append(b.command(cache, c[0], c[1:]...), b.far)...) })
		if err != nil {
			return err
		}
		b.Add(figures.Figure{Name: "`imgfs " + strings.Join(c, " ") + "`: bytes of blobs", Unit: "B", Ours: float64(n), AtMost: figures.Most(0),
			Note: "in " + figures.Number(time.Since(begun).Seconds(), "s")})
	}
	return nil
}
