package main

import (
	"cmp"
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/completion"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/config"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// completeCommand is what scripts of shells call. It is no command of the program: nobody
// types it.
const completeCommand = "__complete"

// completeLimit is how long a shell waits for words at most.
const completeLimit = time.Second

// complete answers the script of a shell. Whatever goes wrong, there is nothing to
// complete then: who presses Tab wants no message.
func (e *env) complete(ctx context.Context, args []string) int {
	if len(args) == 0 {
		return cli.ExitUsage
	}
	line, ok := completion.Parse(args[0], args[1:])
	if !ok {
		return cli.ExitFailure
	}
	ctx, cancel := context.WithTimeout(ctx, completeLimit)
	defer cancel()
	answer := make(chan string, 1)
	go func() {
		quiet := newEnv(io.Discard, io.Discard)
		answer <- line.Answer(quiet.program().Complete(ctx, line.Words))
	}()
	select {
	case text := <-answer:
		if _, err := io.WriteString(e.Raw, text); err != nil {
			return cli.ExitFailure
		}
		return cli.ExitOK
	case <-ctx.Done(): // the process ends with what still runs
		return cli.ExitFailure
	}
}

// completeArgument returns what an argument can become.
func (e *env) completeArgument(ctx context.Context, a cli.Argument) (found cli.Completions) {
	e.offline, e.Quiet = true, true
	for _, means := range a.Means {
		kind := strings.TrimRight(means, "0123456789")
		switch {
		case a.Command == "umount" || a.Command == "upgrade" || a.Command == "stats":
			found.Words = append(found.Words, mountWords(a)...)
		case strings.HasPrefix(kind, "IMAGE"):
			more := e.imageWords(ctx, a)
			found.Words, found.Files = append(found.Words, more.Words...), found.Files || more.Files
		case kind == "PATH":
			found.Words = append(found.Words, e.pathWords(ctx, a)...)
		case kind == "DIR":
			found.Dirs = true
		case kind == "FILE", kind == "DEST":
			found.Files = true
		case kind == "KEY":
			_, keys := e.settingsInForce(commandFlags(e.program(), "config"), new(config.File))
			found.Words = append(found.Words, wordsWith(a.Word, keys)...)
		case strings.ToLower(kind) == kind:
			found.Words = append(found.Words, wordsWith(a.Word, []string{kind})...)
		}
	}
	slices.SortStableFunc(found.Words, func(x, y cli.Candidate) int { return strings.Compare(x.Word, y.Word) })
	found.Words = slices.CompactFunc(found.Words, func(x, y cli.Candidate) bool { return x.Word == y.Word })
	return found
}

// wordsWith returns those of some words that begin with what was typed.
func wordsWith(typed string, words []string) (found []cli.Candidate) {
	for _, w := range words {
		if strings.HasPrefix(w, typed) {
			found = append(found, cli.Candidate{Word: w})
		}
	}
	return found
}

// mountWords returns the user's mounts: the directories, and the images of those that
// were typed in part.
func mountWords(a cli.Argument) []cli.Candidate {
	mounts, err := fusefs.Mounts()
	if err != nil {
		return nil
	}
	var words []string
	for _, m := range mounts {
		if m.Own() && !slices.Contains(a.Before, m.Place()) {
			words = append(words, m.Place())
			if a.Word != "" {
				words = append(words, m.Name)
			}
		}
	}
	return wordsWith(a.Word, words)
}

// localTransports are those behind which a path on this machine follows.
var localTransports = []string{remote.TransportOCI, remote.TransportOCIArchive, remote.TransportDockerArchive}

// imageWords returns images that begin with a word, or the files in the image that it
// names.
func (e *env) imageWords(ctx context.Context, a cli.Argument) (found cli.Completions) {
	word := a.Word
	joined := slices.ContainsFunc(a.Means, func(m string) bool { return strings.Contains(m, "/") || strings.Contains(m, ":") })
	if img, below, ok := remote.CutPath(word); ok && joined {
		found.Words = e.filesIn(ctx, img, img+":", below)
		return found
	}
	if transport, rest, ok := strings.Cut(word, ":"); ok && slices.Contains(localTransports, transport) {
		found.Words = localFiles(transport+":", rest)
		return found
	}
	if strings.HasPrefix(word, "/") || strings.HasPrefix(word, ".") || strings.HasPrefix(word, "~/") {
		found.Files = true
		return found
	}
	if word != "" {
		for _, transport := range localTransports {
			if strings.HasPrefix(transport+":", word) {
				found.Words = append(found.Words, cli.Candidate{Word: transport + ":", More: true})
			}
		}
	}
	found.Words = append(found.Words, e.cachedImages(ctx, word, joined)...)
	return found
}

// cachedImages returns the names of images that were used before and begin with a word,
// in full or as they can be abbreviated here. Behind the colon of a whole name a path
// follows, if joined says so.
func (e *env) cachedImages(ctx context.Context, word string, joined bool) (found []cli.Candidate) {
	disk := e.existingCache()
	if disk == nil {
		return nil
	}
	defer disk.Close()
	images, err := disk.Meta.Images()
	if err != nil {
		return nil
	}
	for _, img := range images {
		found = append(found, wordsWith(word, []string{img.Name})...)
		for i, c := range img.Name {
			short := img.Name[i+1:]
			if c != '/' || word == "" || !strings.HasPrefix(short, word) || ctx.Err() != nil {
				continue
			}
			if r, err := e.resolve(ctx, short, disk); err == nil {
				if r.Name() == img.Name {
					found = append(found, cli.Candidate{Word: short})
				}
				r.Close()
			}
		}
	}
	if name, ok := strings.CutSuffix(word, ":"); ok && joined && name != "" {
		if r, err := e.resolve(ctx, name, disk); err == nil {
			r.Close()
			found = append(found, cli.Candidate{Word: word + "/", More: true})
		}
	}
	return found
}

// existingCache opens the cache directory if there is one already, else it returns nil.
func (e *env) existingCache() *cache.Cache {
	dir := e.cacheDir.String()
	if dir == "" {
		var err error
		if dir, err = cache.DefaultDir(); err != nil {
			return nil
		}
	}
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	disk, err := e.openCache()
	if err != nil {
		return nil
	}
	return disk
}

// pathWords returns the files of the image that an argument before this one names.
func (e *env) pathWords(ctx context.Context, a cli.Argument) []cli.Candidate {
	for i, before := range a.Before {
		if !slices.ContainsFunc(a.MeansAt(i), func(m string) bool { return strings.HasPrefix(m, "IMAGE") }) {
			continue
		}
		img := before
		if cut, _, joined := remote.CutPath(before); joined {
			img = cut
		}
		return e.filesIn(ctx, img, "", a.Word)
	}
	return nil
}

// filesIn returns the files of an image that begin with a path, with text before them.
// There are some only if an index of each layer is in the cache.
func (e *env) filesIn(ctx context.Context, name, before, typed string) (found []cli.Candidate) {
	disk := e.existingCache()
	if disk == nil {
		return nil
	}
	defer disk.Close()
	if typed == "" {
		typed = "/"
	}
	tree := func() *fs.Tree {
		r, err := e.resolve(ctx, name, disk)
		if err != nil {
			return nil
		}
		holdings, err := disk.Blobs.Holdings()
		indexed := make(map[digest.Digest]bool)
		for _, h := range holdings {
			indexed[h.Digest] = h.Index > 0
		}
		for _, l := range r.Layers {
			if err != nil || !indexed[l.Digest()] {
				r.Close()
				return nil
			}
		}
		layers, err := e.openLayers(ctx, r)
		if err != nil {
			return nil
		}
		img, err := e.merge(ctx, layers)
		if err != nil {
			return nil
		}
		return img.Tree() // the process ends soon
	}()
	if tree == nil {
		return nil
	}
	dir, base := path.Split(typed)
	n, err := tree.Lookup("/"+dir, true)
	if err != nil || n.Mode()&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	for child, c := range n.Children() {
		if !strings.HasPrefix(child, base) {
			continue
		}
		w := cli.Candidate{Word: before + dir + child}
		if c.Mode()&unix.S_IFMT == unix.S_IFLNK {
			if to, err := tree.Lookup("/"+dir+child, true); err == nil {
				c = to
			}
		}
		if c.Mode()&unix.S_IFMT == unix.S_IFDIR {
			w.Word, w.More = w.Word+"/", true
		}
		found = append(found, w)
	}
	return found
}

// localFiles returns the files on this machine that begin with a path, with text before
// them.
func localFiles(before, typed string) (found []cli.Candidate) {
	dir, base := filepath.Split(typed)
	from := cmp.Or(expandHome(dir), ".")
	entries, err := os.ReadDir(from)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), base) || base == "" && strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		w := cli.Candidate{Word: before + dir + entry.Name()}
		if info, err := os.Stat(filepath.Join(from, entry.Name())); err == nil && info.IsDir() {
			w.Word, w.More = w.Word+"/", true
		}
		found = append(found, w)
	}
	return found
}
