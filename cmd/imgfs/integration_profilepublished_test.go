//go:build linux

package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/profile"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/indexrepo"
	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// profileTag begins the tags of published profiles.
const profileTag = "/manifests/imgfs1.profile-"

// askedForProfile returns how often a registry was asked for a profile.
func askedForProfile(reg *registrytest.Server) (n int) {
	for _, r := range reg.Requests(registrytest.Manifest) {
		if strings.Contains(r.Path, profileTag) {
			n++
		}
	}
	return n
}

// noteStart mounts an image, starts its program, and leaves the profile in the cache.
func (s *sandbox) noteStart(img string) {
	s.t.Helper()
	dir := s.mount(img)
	s.start(dir)
	s.umount(dir)
	s.profiles(img, 1)
}

// expecting returns what a mount has fetched by a profile that it had to ask for.
func (s *sandbox) expecting(dir string) image.ForecastStats {
	s.t.Helper()
	if !eventually(10*time.Second, func() bool { return s.stats(dir).Profile.Files > 0 }) {
		s.t.Fatal("no profile comes")
	}
	return s.forecast(dir)
}

// TestProfilePublished: what mounts of one machine have noted, and it has published, is
// fetched by the first mount ever of another one before it is read, of another tag, too.
func TestProfilePublished(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	repo := registrytest.New(t, &registrytest.Options{Writable: true})
	p, to := newProfiled(t, 2), repo.Host()+"/team/indexes"
	a := newSandbox(t)
	a.fails(1, []string{"nothing was noted of " + p.reg.Host() + "/app for ", "imgfs mount"}, "index", "push", "--profile", "--to="+to, p.images[0])
	if n := repo.Count(); n > 0 {
		t.Errorf("without a profile: %+v", repo.Requests())
	}
	a.noteStart(p.images[0])
	for _, args := range [][]string{{"--to=" + to, p.images[0]}, {p.images[0]}} {
		for _, state := range []string{"pushed", "there"} {
			r := a.ok(append([]string{"index", "push", "--profile"}, args...)...)
			if want := "the profile of " + p.reg.Host() + "/app for " + remote.HostPlatform().OS + "/"; !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, " is "+state+"\n") {
				t.Errorf("%q: it says %q, not %q and %s", args, r.stderr, want, state)
			}
		}
	}
	a.ok("index", "push", "--to="+to, p.images[1])

	for _, c := range []struct{ image, flag string }{{p.images[1], "--index-repo=" + to}, {p.images[0], "--index-trust=published"}} {
		b := newSandbox(t)
		dir := b.mount(c.image, c.flag)
		got := b.expecting(dir)
		if got.State != image.ForecastWaiting || got.Files != len(programFiles) || got.Fetched < 1<<20 || got.Used != 0 {
			t.Errorf("%s: before anything is read: %+v", c.flag, got)
		}
		before := b.stats(dir).Total
		b.start(dir)
		if n := b.stats(dir).Total.Fetched - before.Fetched; n > 9<<20-got.Fetched {
			t.Errorf("%s: %d bytes had to be fetched for readers", c.flag, n)
		}
		b.umount(dir)
		if doc := b.profiles(c.image, 1); len(doc.Starts) == 1 && doc.Starts[0].Runs != 2 {
			t.Errorf("%s: noted: %+v", c.flag, doc.Starts[0])
		}
		repo.Forget()
		p.reg.Forget()
		b.umount(b.mount(c.image, c.flag))
		if n := askedForProfile(repo) + askedForProfile(p.reg); n > 0 {
			t.Errorf("%s: what is in the cache is asked for %d times", c.flag, n)
		}
		b.ok("profile", "rm", c.image)
		for _, flags := range [][]string{{c.flag, "--offline"}, {c.flag, "--profile=off"}, {"--index-repo=" + to, "--index-trust=bound"}, {"--index-repo=" + to, "--index-trust=local"}} {
			b.umount(b.mount(c.image, flags...))
			if n := askedForProfile(repo) + askedForProfile(p.reg); n > 0 {
				t.Errorf("%q: a profile is asked for %d times", flags, n)
			}
		}
	}
}

// TestProfilePushRefused: a profile goes with indexes of imgfs, and is of an image of a
// registry.
func TestProfilePushRefused(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, &registrytest.Options{Writable: true})
	img, layout := publish(t, reg, small)
	checkRefusal(t, invoke(t, "index", "push", "--soci", "--profile", img), 2, []string{"--soci and --profile exclude each other"}, "imgfs help index push")
	cache := t.TempDir()
	for _, args := range [][]string{{"--to=" + reg.Host() + "/x", layout}, {img}} {
		r := invoke(t, append([]string{"index", "push", "--profile", "--cache-dir", cache}, args...)...)
		if r.code != 1 || !strings.Contains(r.stderr, "noted") || reg.Count(registrytest.Upload) > 0 {
			t.Errorf("%q: exit code %d, stderr %q, %d uploads", args, r.code, r.stderr, reg.Count(registrytest.Upload))
		}
	}
}

// TestProfilePublishedHostile: whatever is published as a profile, and however its place
// behaves, a mount shows the image, notes what is read of it, and ends.
func TestProfilePublishedHostile(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	needFUSE(t)
	p := newProfiled(t, 1)
	s := newSandbox(t)
	s.noteStart(p.images[0]) // the indexes are there from now on
	host := remote.HostPlatform()
	repository, platform, _ := image.ProfileKey(p.images[0], host)
	good := profile.New(repository, platform)
	var reads []profile.Read
	for _, name := range programFiles {
		reads = append(reads, profile.Read{Path: "/" + name, Size: 1 << 20})
	}
	good.Add(reads, time.Now())
	other := *good
	other.Repository += "2"
	onPath := func(part string, fault registrytest.Fault) func(int) registrytest.Fault {
		return registrytest.Always(func(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
			if strings.Contains(r.URL.Path, part) {
				fault(w, r, serve)
				return
			}
			serve(w, r)
		})
	}
	for what, c := range map[string]struct {
		content []byte
		size    int64
		hurt    func(reg *registrytest.Server, blob digest.Digest)
		believe bool
	}{
		"the good one":   {content: good.Encode(), believe: true},
		"huge":           {content: good.Encode(), size: 1 << 40},
		"none in 8 MiB":  {content: []byte(strings.Repeat("[", profile.MaxSize))},
		"no JSON":        {content: []byte("not JSON")},
		"of others":      {content: other.Encode()},
		"without starts": {content: profile.New(repository, platform).Encode()},
		"with another digest": {content: good.Encode(), hurt: func(reg *registrytest.Server, blob digest.Digest) {
			reg.ReplaceBlob(blob, append([]byte(" "), good.Encode()[:len(good.Encode())-1]...))
		}},
		"silent": {content: good.Encode(), hurt: func(reg *registrytest.Server, _ digest.Digest) {
			reg.Inject(registrytest.Manifest, onPath(profileTag, reg.Stall(-1)))
		}},
		"silent half way": {content: good.Encode(), hurt: func(reg *registrytest.Server, blob digest.Digest) {
			reg.Inject(registrytest.Blob, onPath(blob.String(), reg.Stall(20)))
		}},
		"without end": {content: good.Encode(), hurt: func(reg *registrytest.Server, blob digest.Digest) {
			reg.Inject(registrytest.Manifest, onPath(profileTag, reg.Endless(ocispec.MediaTypeImageManifest, []byte("{"))))
		}},
	} {
		t.Run(what, func(t *testing.T) {
			s := s.in(t)
			reg := registrytest.New(t, nil)
			blob := ocispec.Descriptor{MediaType: "application/vnd.imgfs.profile.v1+json", Digest: digest.FromBytes(c.content), Size: int64(len(c.content))}
			reg.PutBlob(blob.MediaType, c.content)
			if c.size > 0 {
				blob.Size = c.size
			}
			reg.PutArtifact("x", indexrepo.ProfileTag(repository, platform), ocispec.Manifest{ArtifactType: indexrepo.ProfileType, Layers: []ocispec.Descriptor{blob}})
			if c.hurt != nil {
				c.hurt(reg, blob.Digest)
			}
			s.ok("profile", "rm", p.images[0])
			dir := s.mount(p.images[0], "--index-repo="+reg.Host()+"/x")
			if !eventually(10*time.Second, func() bool { return askedForProfile(reg) > 0 }) {
				t.Fatal("nobody asks for it")
			}
			if c.believe {
				s.expecting(dir)
			}
			s.start(dir)
			s.umount(dir) // which waits no longer for its end than for that of others
			runs := 1
			if c.believe {
				runs = 2
			}
			if doc := s.profiles(p.images[0], 1); len(doc.Starts) == 1 && (doc.Starts[0].Runs != runs || doc.Starts[0].Files != len(programFiles)) {
				t.Errorf("noted: %+v", doc.Starts[0])
			}
		})
	}
}
