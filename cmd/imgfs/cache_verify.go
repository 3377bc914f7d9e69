package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
)

func cacheVerifyCommand(e *env) cli.Command {
	return cli.Command{
		Name:  "verify",
		Usage: "[--json]",
		Entry: cli.Entry{Usage: "", Text: "check all of it against its digests"},
		About: `Reads everything in the cache and compares it with its digest: the pieces of
layers with the sums in their index, the whole layer if there is no index, the
indexes with the sums in them, files kept whole, manifests and configs; also
whether the notes on images, references and verification make sense. What is
wrong is removed and named, and the exit code is 1. Mounts that use it fetch it
again.

A layer of which there are only some pieces and no index cannot be compared with
anything. It stays and is counted as unknown: nothing is read from it without an
index.`,
		Example: "imgfs cache verify",
		Setup: func(f *pflag.FlagSet) cli.Action {
			asJSON := f.Bool("json", false, "an object with what was found; docs/json.md names its members")
			return func(ctx context.Context, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("cache verify: %q is not a flag", args[0])
				}
				return cacheVerify(ctx, e, *asJSON)
			}
		},
	}
}

// A verifyReport is what imgfs cache verify --json prints.
type verifyReport struct {
	Blobs   int   `json:"blobs"`   // with bytes in the cache
	Bytes   int64 `json:"bytes"`   // of the blobs that were read
	Indexes int   `json:"indexes"` // in the cache
	// Contents is the number of kept files that were read, and ContentBytes their
	// size.
	Contents     int          `json:"contents"`
	ContentBytes int64        `json:"contentBytes"`
	Meta         int          `json:"meta"`  // manifests, configs, references and other notes
	Wrong        []wrongThing `json:"wrong"` // has been removed
	// Unknown are the blobs that cannot be compared with anything.
	Unknown []digest.Digest `json:"unknown"`
	// Foreign are things that imgfs did not make or cannot use. They were not read.
	Foreign []foreignThing `json:"foreign"`
}

// A wrongThing is something in the cache that was damaged.
type wrongThing struct {
	Kind      string         `json:"kind"`                // "blob", "index", "content" or "meta"
	Digest    digest.Digest  `json:"digest,omitempty"`    // of the blob, or the content
	File      string         `json:"file,omitempty"`      // of meta
	FileBytes show.NameBytes `json:"fileBytes,omitempty"` // see show.Marshal
	Chunks    int64          `json:"chunks,omitempty"`    // that are wrong, if the blob has an index
	Bytes     int64          `json:"bytes,omitempty"`     // of these chunks
	Why       string         `json:"why"`
}

func cacheVerify(ctx context.Context, e *env, asJSON bool) error {
	disk, err := e.openCache()
	if err != nil {
		return err
	}
	defer disk.Close()
	if err := disk.ReadOnly(); err != nil {
		return err // nothing that is wrong could be removed
	}
	v := verifier{cache: disk, store: indexes.New(disk.Indexes()), keyed: map[digest.Digest][]indexes.File{},
		report: verifyReport{Wrong: []wrongThing{}, Unknown: []digest.Digest{}, Foreign: []foreignThing{}}}
	if err := v.all(ctx, e); err != nil {
		return err
	}
	if asJSON {
		err = show.JSON(e.Stdout, v.report)
	} else {
		err = e.printReport(&v.report)
	}
	if err == nil && len(v.report.Wrong) > 0 {
		return &cli.ExitError{Code: cli.ExitFailure}
	}
	return err
}

// A verifier is imgfs cache verify at work.
type verifier struct {
	cache  *cache.Cache
	store  *indexes.Store
	keyed  map[digest.Digest][]indexes.File // indexes that others made
	report verifyReport
}

func (v *verifier) wrong(w wrongThing) { v.report.Wrong = append(v.report.Wrong, w) }

// all verifies everything. Indexes come first, because blobs are compared with
// them. Verification marks come before blobs, too: verifying a blob writes a damaged
// mark again.
func (v *verifier) all(ctx context.Context, e *env) error {
	if err := v.meta(ctx); err != nil {
		return err
	}
	if err := v.indexes(ctx); err != nil {
		return err
	}
	holdings, err := v.cache.Blobs.Holdings()
	if err != nil {
		return err
	}
	contents, err := v.cache.Files.List()
	if err != nil {
		return err
	}
	others, err := v.cache.Others()
	if err != nil {
		return err
	}
	v.report.Foreign = foreignThings(others)
	total, done := int64(0), int64(0)
	for _, h := range holdings {
		total += h.Cached
	}
	for _, x := range contents {
		total += x.Size
	}
	g := show.NewBar(e, "verifying")
	defer g.Finish()
	g.Update(0, total)
	for _, h := range holdings {
		if h.Cached == 0 {
			continue
		}
		if err := v.files(ctx, h, func(n int64) { g.Update(done+min(n, h.Cached), total) }); err != nil {
			return fmt.Errorf("blob %s: %w", h.Digest, err)
		}
		v.report.Blobs++
		done += h.Cached
		g.Update(done, total)
	}
	for _, x := range contents {
		if err := v.content(ctx, x.Digest); err != nil {
			return err
		}
		done += x.Size
		g.Update(done, total)
	}
	return nil
}

// meta verifies the small files.
func (v *verifier) meta(ctx context.Context) error {
	checked, removed, err := v.cache.Meta.Verify(ctx)
	v.report.Meta = checked
	for _, file := range removed {
		v.wrong(wrongThing{Kind: "meta", File: file, Why: "it has another digest, or cannot be understood"})
	}
	return err
}

// indexes verifies the index files.
func (v *verifier) indexes(ctx context.Context) error {
	list, err := v.store.List()
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.report.Indexes++
		err := v.indexFile(ctx, s)
		if err == nil {
			if s.Key != "" {
				v.keyed[s.Digest] = append(v.keyed[s.Digest], s)
			}
			continue
		}
		if !isDamage(err) {
			return err
		}
		if err := v.removeIndex(s); err != nil {
			return err
		}
		v.wrong(wrongThing{Kind: "index", Digest: s.Digest, Bytes: s.Size, Why: cli.Describe(err)})
	}
	return nil
}

// indexFile verifies one index file.
func (v *verifier) indexFile(ctx context.Context, f indexes.File) error {
	if f.Key != "" {
		return v.store.VerifyKey(ctx, f.Digest, f.Key)
	}
	x, err := v.store.Open(f.Digest)
	if err != nil {
		return err
	}
	defer x.Close()
	return v.index(ctx, x)
}

func (v *verifier) removeIndex(f indexes.File) error {
	if f.Key != "" {
		return v.store.RemoveKey(f.Digest, f.Key)
	}
	return v.store.Remove(f.Digest)
}

// index verifies the file of an index that was made by reading the layer, also against
// the marks of earlier verification.
func (v *verifier) index(ctx context.Context, x *layerindex.Index) error {
	if err := x.Verify(ctx); err != nil {
		return err
	}
	chunks, err := chunksOf(x)
	if err == nil {
		err = v.cache.Blobs.CheckCuts(x.Digest(), x.BlobSize(), chunks)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", layerindex.ErrIndex, err)
	}
	return nil
}

func chunksOf(x *layerindex.Index) (blobs.Chunks, error) {
	sums, err := x.ChunkSums()
	return blobs.Chunks{Size: x.ChunkSize(), Sums: sums}, err
}

// blob verifies what is cached of a blob in chunks of one size, and tells how much of it
// by now. Where the index made here is gone, those that another made will do.
func (v *verifier) blob(ctx context.Context, h blobs.Holding, others blobs.Cuts, progress func(done int64)) error {
	x, err := v.store.Open(h.Digest)
	if err != nil && others != nil {
		return v.otherChunks(ctx, h, others, progress)
	}
	if err != nil {
		return v.withoutIndex(ctx, h, progress)
	}
	defer x.Close()
	chunks, err := chunksOf(x)
	if err != nil {
		return v.withoutIndex(ctx, h, progress)
	}
	check, err := v.cache.Blobs.Verify(ctx, h.Digest, x.BlobSize(), chunks, progress)
	if err != nil {
		return err
	}
	v.report.Bytes += h.Cached
	if check.Refuted {
		if err := v.store.Remove(h.Digest); err != nil {
			return err
		}
		v.wrong(wrongThing{Kind: "index", Digest: h.Digest, Bytes: x.EncodedSize(),
			Why: "all chunks are as it says, and the whole is not the layer"})
	}
	v.bad(h, check)
	return nil
}

// withoutIndex verifies a blob that has no index: by its digest, if all of it is
// cached.
func (v *verifier) withoutIndex(ctx context.Context, h blobs.Holding, progress func(done int64)) error {
	stored, ok := v.cache.Blobs.Stored(h.Digest, h.Size)
	if !ok {
		v.report.Unknown = append(v.report.Unknown, h.Digest)
		return nil
	}
	defer stored.Close()
	got, err := digestOf(ctx, stored, progress)
	if err != nil {
		return err
	}
	v.report.Bytes += h.Size
	if got == h.Digest {
		return nil
	}
	v.cache.Blobs.Remove(h.Digest)
	v.wrong(wrongThing{Kind: "blob", Digest: h.Digest, Bytes: h.Size, Why: "its digest is " + got.String()})
	return nil
}

// content verifies a kept file, unless it has been removed meanwhile.
func (v *verifier) content(ctx context.Context, d digest.Digest) error {
	check, ok, err := v.cache.Files.Verify(ctx, d)
	if err != nil || !ok {
		return err
	}
	v.report.Contents++
	v.report.ContentBytes += check.Bytes
	if !check.Bad {
		return nil
	}
	why := "it cannot be read"
	if check.Got != "" {
		why = "its digest is " + check.Got.String()
	}
	v.wrong(wrongThing{Kind: "content", Digest: d, Bytes: check.Bytes, Why: why})
	return nil
}

// isDamage reports whether an error says that an index file is of no use, rather
// than that it could not be read.
func isDamage(err error) bool {
	return errors.Is(err, layerindex.ErrIndex) || errors.Is(err, indexes.ErrNone)
}

// digestOf reads a blob and returns the digest of its bytes.
func digestOf(ctx context.Context, b remote.Blob, progress func(done int64)) (digest.Digest, error) {
	h := b.Digest().Algorithm().Digester()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < b.Size(); {
		n, err := b.ReadAt(ctx, buf[:min(int64(len(buf)), b.Size()-off)], off)
		h.Hash().Write(buf[:n])
		progress(off + int64(n))
		if off += int64(n); err != nil && off < b.Size() {
			return "", err
		}
	}
	return h.Digest(), nil
}

// printReport prints a report for people.
func (e *env) printReport(r *verifyReport) error {
	for _, w := range r.Wrong {
		what := printable.Name(w.Kind) + " " + printable.Name(w.Digest.String())
		switch w.Kind {
		case "index":
			what = "index of " + printable.Name(w.Digest.String())
		case "meta":
			what = printable.Name(w.File)
		}
		if err := e.printLine("removed: %s: %s", what, printable.Line(w.Why)); err != nil {
			return err
		}
	}
	for _, d := range r.Unknown {
		if err := e.printLine("unknown: blob %s: there are only some of its chunks, and no index", printable.Name(d.String())); err != nil {
			return err
		}
	}
	verdict := "all are as they should be"
	if n := len(r.Wrong); n > 0 {
		verdict = fmt.Sprintf("%d wrong, and removed", n)
	}
	if n := len(r.Unknown); n > 0 {
		verdict += fmt.Sprintf(", %d unknown", n)
	}
	if err := e.printForeign(r.Foreign); err != nil {
		return err
	}
	return e.printLine("verified %s (%s), %s, %s (%s), %d manifests, configs and notes: %s",
		show.Count(r.Blobs, "layer"), show.Bytes(r.Bytes), show.Count(r.Indexes, "index"), show.Count(r.Contents, "whole file"), show.Bytes(r.ContentBytes), r.Meta, verdict)
}
