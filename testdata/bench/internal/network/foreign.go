package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/foreign"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// A way is how somebody gets to see an image with a cache directory that is empty.
type way struct {
	name  string
	img   *image
	flags []string
	// origin and vouched are what imgfs stats must say of the layers' indexes.
	origin, vouched string
	share           float64 // of the layers' bytes, in percent, that may be moved for a list
	looks           []look
}

// A look is the cost of one first look at an image.
type look struct {
	ready time.Duration // until the mount was
	trips int           // of which one waited for the other, until then
	list  time.Duration // until all was listed, from the beginning
	asked int64         // requests until all was listed
	moved int64         // bytes of bodies until then, of every kind
	cat   use           // of one small file after that, with requests of every kind
}

// indexRepository is where the published indexes are.
const indexRepository = "indexes"

// ownPass is the way without an index.
const ownPass = "the pass"

// foreign compares the first mount of an image with indexes that others made with that
// of the ordinary image, which has to be read whole.
func (b *bench) foreign() error {
	b.fast()
	ways, err := b.ways()
	if err != nil {
		return err
	}
	b.slow()
	var tasks []runner.Task
	for _, w := range ways {
		tasks = append(tasks, runner.Task{Name: w.name, Run: func() error { return b.look(w) }})
	}
	if _, err := b.InTurns(b.Runs, tasks); err != nil {
		return err
	}
	b.Note("bytes and requests are all that went through the line: of layers, indexes, manifests and tokens")
	b.Note("round trips: of requests of which each began when the one before had ended; those at the same time count as one")
	for _, w := range ways[1:] {
		b.addWay(w, ways[0])
	}
	return nil
}

// ways returns the ways there are, the ordinary pass first. Ways that are not there are
// rows of the table.
func (b *bench) ways() ([]*way, error) {
	here := layerindex.OriginPass.String()
	ways := []*way{{name: ownPass, img: b.node, flags: []string{"--index-trust", "local"}, origin: here, vouched: "local"}}
	for _, k := range []struct {
		foreign.Kind
		share float64
	}{{foreign.EStargz, 3}, {foreign.ZstdChunked, 3}, {foreign.SOCI, 9}} {
		plain, err := b.others.Image(k.Kind, "node", b.node.Image)
		if errors.Is(err, foreign.ErrNone) {
			b.Add(figures.Figure{Name: k.Name, Unit: "%", Missing: err.Error(), AtMost: figures.Most(k.share)})
			continue
		}
		if err != nil {
			return nil, err
		}
		img := &image{Image: plain, what: k.Name, name: "node:" + k.Suffix, far: b.proxy.host + "/node:" + k.Suffix}
		if img.near, err = b.PushAll(plain, "node", k.Suffix); err != nil {
			return nil, err
		}
		ways = append(ways, &way{name: k.Name, img: img, origin: k.Origin.String(), vouched: "manifest", share: k.share})
	}
	host, err := b.Registry()
	if err != nil {
		return nil, err
	}
	publisher := filepath.Join(b.Dir, "publisher")
	if _, err := b.Output(b.Imgfs, "index", "push", "--cache-dir", publisher, "--to", host+"/"+indexRepository, b.node.near); err != nil {
		return nil, err
	}
	return append(ways, &way{name: "imgfs, index repository", img: b.node, flags: []string{"--index-repo", b.proxy.host + "/" + indexRepository},
		origin: here, vouched: "registry", share: 0.4}), os.RemoveAll(publisher)
}

// look has one first look.
func (b *bench) look(w *way) error {
	var l look
	cache := filepath.Join(b.Dir, "look")
	b.proxy.forget()
	begun := time.Now()
	err := b.With(cache, w.img.far, w.flags, func(m *runner.Mount) error {
		l.ready, l.trips = m.Ready, roundTrips(b.proxy.exchanges())
		if _, err := b.Timed("ls", "-lR", m.Dir); err != nil {
			return err
		}
		l.list = time.Since(begun)
		seen, err := b.proxy.settled(b.Ctx)
		if err != nil {
			return err
		}
		b.traced("ls -lR, " + w.name)
		l.asked, l.moved = seen.all().Requests, seen.all().Bytes
		b.proxy.forget()
		if l.cat.took, err = b.piped("cat", m.Dir+"/etc/os-release"); err != nil {
			return err
		}
		if seen, err = b.proxy.settled(b.Ctx); err != nil {
			return err
		}
		b.traced("cat, " + w.name)
		l.cat.requests, l.cat.moved = seen.all().Requests, seen.all().Bytes
		return b.servedBy(m, w)
	})
	w.looks = append(w.looks, l)
	return errors.Join(err, os.RemoveAll(cache))
}

// servedBy checks by which indexes a mount reads its layers.
func (b *bench) servedBy(m *runner.Mount, w *way) error {
	s, err := b.StatsOf(m.Dir)
	if err != nil {
		return err
	}
	if n := len(w.img.Manifest.Layers); len(s.Layers) != n {
		return fmt.Errorf("%s: statistics of %d layers, want %d", w.name, len(s.Layers), n)
	}
	for i, l := range s.Layers {
		if l.Index.Origin != w.origin || l.Index.Vouched != w.vouched {
			return fmt.Errorf("%s: layer %d is read by an index of %s, vouched for by %s; want %s and %s", w.name, i, l.Index.Origin, l.Index.Vouched, w.origin, w.vouched)
		}
	}
	return nil
}

// roundTrips returns how many requests there were of which each began when another one
// had ended, at most. They are in the order in which they began.
func roundTrips(all []exchange) int {
	most, depths := 0, make([]int, len(all))
	for i, e := range all {
		for j, before := range all[:i] {
			if before.End > 0 && before.End <= e.Begun {
				depths[i] = max(depths[i], depths[j])
			}
		}
		depths[i]++
		most = max(most, depths[i])
	}
	return most
}

// addWay puts the rows of a way into the table.
func (b *bench) addWay(w, pass *way) {
	ready, list := figures.Median(each(w.looks, func(l look) time.Duration { return l.ready })), each(w.looks, func(l look) time.Duration { return l.list })
	last := w.looks[len(w.looks)-1]
	share := figures.Figure{Name: w.name + ": until `ls -lR` is done: bytes, of the layers'", Unit: "%", Ours: w.moved(), Peer: pass.name, Theirs: pass.moved(),
		Note: fmt.Sprintf("%s of %s in %d requests", figures.Megabytes(slices.Max(each(w.looks, func(l look) int64 { return l.moved }))), figures.Megabytes(w.img.Size()), last.asked)}
	if b.Corpora != "" { // a smaller image has the same manifests and tokens
		share.AtMost = &w.share
	}
	mount := figures.Figure{Name: w.name + ": `imgfs mount`: until it is ready", Unit: "ms", Ours: float64(ready.Milliseconds()),
		Peer: pass.name, Theirs: float64(figures.Median(each(pass.looks, func(l look) time.Duration { return l.ready })).Milliseconds()),
		Note: fmt.Sprintf("%d round trips", last.trips)}
	if w.img == pass.img {
		mount.AtMost = figures.Most(500 + float64(last.trips)*float64(b.Delay.Milliseconds()))
		mount.Note = fmt.Sprintf("500 ms and %d round trips", last.trips)
	}
	b.Add(share,
		figures.Figure{Name: w.name + ": until `ls -lR` is done: time", Unit: "s", Ours: figures.Median(list).Seconds(),
			Peer: pass.name, Theirs: figures.Median(each(pass.looks, func(l look) time.Duration { return l.list })).Seconds()},
		mount)
	cats := each(w.looks, func(l look) use { return l.cat })
	note := "in " + milliseconds(cats)
	if w.origin == layerindex.OriginSOCI.String() {
		note += "; what can be checked is a whole span, which has 4 MiB uncompressed"
	}
	b.want(w.name+": then `cat DIR/etc/os-release`: bytes", float64(slices.Max(each(cats, moved)))/1e3, 400, "kB", note)
	b.want(w.name+": then `cat DIR/etc/os-release`: requests", float64(slices.Max(each(cats, requests))), 3, "", "")
}

// moved returns the share of the layers' bytes, in percent, of the look that moved most.
func (w *way) moved() float64 {
	return 100 * float64(slices.Max(each(w.looks, func(l look) int64 { return l.moved }))) / float64(w.img.Size())
}
