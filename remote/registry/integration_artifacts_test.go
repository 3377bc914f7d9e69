package registry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/registry"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// An artifactRegistry is a real registry over a directory that can collect its
// garbage.
type artifactRegistry struct {
	name string
	// program returns its path, or skips the test.
	program func(t *testing.T) string
	// start runs it over dir until stop.
	start func(t *testing.T, program, dir, host string) (stop func())
	// collect removes all that no tag and no manifest with a tag leads to, while
	// nobody pushes.
	collect func(t *testing.T, program, dir string)
	api     bool // for referrers
}

func artifactRegistries() []artifactRegistry {
	conf := func(dir string) string { return filepath.Join(dir, "config.yml") }
	serve := func(t *testing.T, program, dir, host string) func() {
		t.Helper()
		text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), host)
		if err := os.WriteFile(conf(dir), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "serve", conf(dir))
		cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
		return startServer(t, cmd)
	}
	collect := func(t *testing.T, program, dir string) {
		t.Helper()
		if out, err := exec.Command(program, "garbage-collect", "-m", conf(dir)).CombinedOutput(); err != nil {
			t.Fatalf("garbage-collect: %v\n%s", err, out)
		}
	}
	return []artifactRegistry{
		{name: "docker-registry", start: serve, collect: collect, program: func(t *testing.T) string {
			needPrograms(t, "docker-registry")
			return "docker-registry"
		}},
		{name: "distribution 3", start: serve, collect: collect, program: distribution3},
		{name: "zot", api: true, program: zot, start: startZot, collect: collectZot},
	}
}

// distribution3 returns the program that $IMGFS_DISTRIBUTION3 names, or builds that of
// testdata.
func distribution3(t *testing.T) string {
	t.Helper()
	switch program := os.Getenv("IMGFS_DISTRIBUTION3"); program {
	case "":
		t.Skip("IMGFS_DISTRIBUTION3 is not set; build has testdata/distribution3 built")
	case "build":
	default:
		return program
	}
	program := filepath.Join(t.TempDir(), "distribution3")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = filepath.Join("..", "..", "testdata", "distribution3")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

func zot(t *testing.T) string {
	t.Helper()
	if program := os.Getenv("IMGFS_ZOT"); program != "" {
		return program
	}
	if program, err := exec.LookPath("zot"); err == nil {
		return program
	}
	t.Skip("zot is not installed, and IMGFS_ZOT does not name it")
	return ""
}

// startZot runs zot. Once there is a file collect in dir it collects garbage.
func startZot(t *testing.T, program, dir, host string) func() {
	t.Helper()
	_, port, _ := strings.Cut(host, ":")
	storage := map[string]any{"rootDirectory": filepath.Join(dir, "data"), "dedupe": true, "gc": false}
	if _, err := os.Stat(filepath.Join(dir, "collect")); err == nil {
		storage["gc"], storage["gcDelay"], storage["gcInterval"] = true, "1ms", "500ms"
		storage["retention"] = map[string]any{"delay": "1ms", "policies": []any{
			map[string]any{"repositories": []string{"**"}, "deleteUntagged": true, "deleteReferrers": false},
		}}
	}
	text, err := json.Marshal(map[string]any{
		"distSpecVersion": "1.1.1", "storage": storage, "log": map[string]any{"level": "error"},
		"http": map[string]any{"address": "127.0.0.1", "port": port},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "zot.json")
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
	return startServer(t, exec.Command(program, "serve", path))
}

// collectZot has zot collect garbage for some seconds: it does so while it serves.
func collectZot(t *testing.T, program, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "collect"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	host := freeAddress(t)
	stop := startZot(t, program, dir, host)
	defer stop()
	waitForServer(t, host)
	time.Sleep(4 * time.Second)
}

// publishers is how many push at once.
const publishers = 24

// TestPublishersAndGC has many publishers push artifacts of one image at once, each
// under a tag of its own, with a blob of its own, one that others push as well, and the
// empty config. All of them are found, by tag and with their blobs, and still after the
// registry has removed what has no tag.
func TestPublishersAndGC(t *testing.T) {
	testenv.Slow(t)
	for _, server := range artifactRegistries() {
		t.Run(server.name, func(t *testing.T) {
			program := server.program(t)
			dir, host := t.TempDir(), freeAddress(t)
			stop := server.start(t, program, dir, host)
			waitForServer(t, host)
			subject := publishImage(t, host)
			tops := make([]ocispec.Descriptor, publishers)
			contents := make([][]byte, publishers)
			readers(t, publishers, func(i int) error {
				contents[i] = noise(byte(i), 50_000+i)
				var err error
				tops[i], err = publish(t, host, publishedTag(i), subject, contents[i], noise(byte(100+i%3), 200_000))
				return err
			})
			garbage := publishGarbage(t, host)
			check := func(when string, garbageGone bool) {
				t.Helper()
				for i := range publishers {
					if err := findPublished(t, host, publishedTag(i), tops[i], subject.Digest, contents[i]); err != nil {
						t.Errorf("%s: publisher %d: %v", when, i, err)
					}
				}
				r := openReal(t, host, "latest")
				list, err := r.Referrers(t.Context(), subject.Digest, oneType)
				if err != nil || server.api && !slices.Equal(digests(list), digests(tops)) || !server.api && list != nil {
					t.Errorf("%s: referrers: got %d and error %v, want %d if there is an API", when, len(list), err, publishers)
				}
				if img, err := r.Resolve(t.Context()); err != nil || img.Digest != subject.Digest {
					t.Errorf("%s: the image: got %v and error %v", when, img, err)
				}
				if _, err := remote.OpenArtifact(t.Context(), r, garbage); garbageGone != errors.Is(err, remote.ErrNotFound) {
					t.Errorf("%s: what has no tag: got error %v", when, err)
				}
			}
			check("after pushing", false)
			stop()
			server.collect(t, program, dir)
			host = freeAddress(t)
			server.start(t, program, dir, host)
			waitForServer(t, host)
			check("after collecting garbage", true)
		})
	}
}

func publishedTag(i int) string {
	return "imgfs1." + strings.Replace(sumOf(fmt.Sprint("layer", i)), ":", "-", 1)
}

// openReal returns a repository of a registry by a client of its own, as another
// process has one.
func openReal(t *testing.T, host, tag string) *registry.Repository {
	t.Helper()
	opts := fast()
	opts.MinBackoff, opts.MaxBackoff = 0, 0 // who comes in another's way waits as in real life
	client := registry.New(opts)
	t.Cleanup(func() { client.Close() })
	return client.Repository(remote.Reference{Registry: host, Repository: "team/app", Tag: tag})
}

// publishImage pushes an image with an empty layer.
func publishImage(t *testing.T, host string) ocispec.Descriptor {
	t.Helper()
	r := openReal(t, host, "latest")
	config := []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`)
	if err := r.PutBlob(t.Context(), descriptorOf(config), bytes.NewReader(config), nil); err != nil {
		t.Fatal(err)
	}
	text := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		manifestType, ocispec.MediaTypeImageConfig, digest.FromBytes(config), len(config))
	desc, err := r.PutManifest(t.Context(), manifestType, text, "latest")
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// publish pushes an artifact with blobs; "" is no tag.
func publish(t *testing.T, host, tag string, subject ocispec.Descriptor, blobs ...[]byte) (ocispec.Descriptor, error) {
	r := openReal(t, host, "latest")
	m := artifact(oneType, 1, nil)
	if subject.Digest != "" {
		m.Subject = &subject
	}
	m.SchemaVersion, m.MediaType, m.Config = 2, manifestType, ocispec.DescriptorEmptyJSON
	m.Config.Data = nil
	for _, blob := range append(blobs, []byte("{}")) {
		desc := descriptorOf(blob)
		if err := r.PutBlob(t.Context(), desc, bytes.NewReader(blob), nil); err != nil {
			return desc, err
		}
		if len(blob) > 2 {
			m.Layers = append(m.Layers, desc)
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return r.PutManifest(t.Context(), manifestType, text, tag)
}

// publishGarbage pushes what has neither a tag nor a subject.
func publishGarbage(t *testing.T, host string) ocispec.Descriptor {
	t.Helper()
	desc, err := publish(t, host, "", ocispec.Descriptor{}, noise(99, 1000))
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// findPublished looks for an artifact by its tag, and reads it.
func findPublished(t *testing.T, host, tag string, want ocispec.Descriptor, subject digest.Digest, content []byte) error {
	r := openReal(t, host, "latest")
	desc, err := r.ResolveTag(t.Context(), tag)
	if err != nil {
		return err
	}
	a, err := remote.OpenArtifact(t.Context(), r, desc)
	if err != nil {
		return err
	}
	if a.Descriptor.Digest != want.Digest || a.Type != oneType || a.Subject == nil || a.Subject.Digest != subject || len(a.Layers) != 2 {
		return fmt.Errorf("it has %+v", a)
	}
	for i, l := range a.Layers {
		b, err := r.Blob(l)
		if err != nil {
			return err
		}
		if i > 0 {
			content = make([]byte, l.Size)
			if _, err := b.ReadAt(t.Context(), content, 0); err != nil || digest.FromBytes(content) != l.Digest {
				return fmt.Errorf("blob %d: error %v, digest %s", i, err, digest.FromBytes(content))
			}
		}
		if err := check(t.Context(), b, content, 100, len(content)-100); err != nil {
			return err
		}
	}
	return nil
}
