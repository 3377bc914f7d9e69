package soci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
)

var updateZtocs = flag.Bool("update-ztocs", false, "have SOCI make testdata/*.ztoc.gz again, of new layers")

// sociProgram returns the program of testdata/sociztoc, SOCI's own code, that $IMGFS_SOCI
// names, or builds it once. That needs a C compiler, libz.a and the modules.
func sociProgram(t testing.TB) string {
	t.Helper()
	switch program := os.Getenv("IMGFS_SOCI"); program {
	case "":
		t.Skip("IMGFS_SOCI is not set; build has testdata/sociztoc built")
	case "build":
	default:
		return program
	}
	program, err := buildSOCI()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

var builtSOCI = filepath.Join(os.TempDir(), fmt.Sprintf("imgfs-sociztoc-%d", os.Getpid()))

var buildSOCI = sync.OnceValues(func() (string, error) {
	build := exec.Command("go", "build", "-o", builtSOCI, ".")
	build.Dir = filepath.Join("..", "..", "testdata", "sociztoc")
	build.Env = append(os.Environ(), "CGO_ENABLED=1", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return builtSOCI, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.Remove(builtSOCI)
	os.Exit(code)
}

// runSOCI runs SOCI's code and returns what it prints.
func runSOCI(t testing.TB, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(sociProgram(t), args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("SOCI: %v: %s", err, complaint.String())
	}
	return out
}

func writeFile(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRealSOCI: what SOCI's builder makes of a layer gives the index that a pass makes,
// our ztocs are those that it makes but for bytes that decoding does not need, and
// SOCI's reader finds in ours every entry, header and content.
func TestRealSOCI(t *testing.T) {
	t.Parallel()
	sociProgram(t)
	for _, m := range madeLayers(t) {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			layer, out := writeFile(t, dir, "layer", m.blob), filepath.Join(dir, "theirs")
			runSOCI(t, "make", strconv.FormatInt(m.span, 10), layer, out)
			theirs, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			s := m.sample(theirs)
			x := s.index(t)
			checkEntries(t, x, s.pass(t))
			s.checkContent(t, x)

			ours, err := Build(context.Background(), s.layer(), bytes.NewReader(m.blob), &BuildOptions{SpanSize: m.span})
			if err != nil {
				t.Fatal(err)
			}
			if !m.differs {
				checkSame(t, ours, theirs)
			}
			checkRead(t, x, &m, runSOCI(t, "read", layer, writeFile(t, dir, "ours", ours)))
		})
	}
}

// checkRead compares what SOCI's reader says of our ztoc with an index of the layer.
func checkRead(t testing.TB, x *layerindex.Index, m *made, out []byte) {
	t.Helper()
	entries := entriesOf(t, x)
	d := json.NewDecoder(bytes.NewReader(out))
	for i, e := range entries {
		var got struct {
			Name, Type, Sum string
			Size            int64
		}
		if err := d.Decode(&got); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(m.tar[e.Off:e.Off+e.Size]))
		if got.Name != strconv.Quote(e.Name) || got.Type != typeNames[e.Type-'0'] || got.Size != e.Size || got.Sum != sum {
			t.Errorf("entry %d: SOCI reads %+v, want %q, %c, %d, %s", i, got, e.Name, e.Type, e.Size, sum)
		}
	}
	if d.More() {
		t.Error("SOCI reads more entries")
	}
}

// fixtures are layers in testdata with ztocs that SOCI 0.16.1 made of them
// (TestFixtures with -update-ztocs). Both are compressed with gzip once more.
func fixtures(t testing.TB) []*sample {
	t.Helper()
	var list []*sample
	for _, name := range []string{"blocks", "emptyfirst", "plain", "spans"} {
		s := &sample{name: name}
		for _, f := range []struct {
			name string
			to   *[]byte
		}{{"layer", &s.blob}, {"ztoc", &s.ztoc}} {
			b, err := os.ReadFile(filepath.Join("testdata", name+"."+f.name+".gz"))
			if err != nil {
				t.Fatal(err)
			}
			*f.to = unpack(t, b)
		}
		s.tar = unpack(t, s.blob)
		list = append(list, s)
	}
	return list
}

// TestFixtures: the indexes from ztocs of SOCI have the entries that a pass finds, and
// give the bytes of the tar; and where spans are as long as they may be, our ztocs say
// the same.
func TestFixtures(t *testing.T) {
	t.Parallel()
	if *updateZtocs {
		updateFixtures(t)
	}
	for _, s := range fixtures(t) {
		x := s.index(t)
		checkEntries(t, x, s.pass(t))
		s.checkContent(t, x)
		if n := len(mustOpen(t, s.ztoc).spans); n < 3 {
			t.Errorf("%s: %d spans", s.name, n)
		}
		if s.name != "plain" && s.name != "spans" {
			continue
		}
		ours, err := Build(context.Background(), s.layer(), bytes.NewReader(s.blob), &BuildOptions{SpanSize: spanSizeOf(mustOpen(t, s.ztoc))})
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, ours, s.ztoc)
	}
}

func updateFixtures(t testing.TB) {
	t.Helper()
	tar := writeTar(t, 0, 1, 511, 9000)
	for name, c := range map[string]struct {
		blob []byte
		span int
	}{
		"blocks":     {member(t, tar, "layer.tar", 1000), 9000},
		"emptyfirst": {append(member(t, nil, "", 1), member(t, tar, "", 1000)...), 9000},
		"plain":      {tar, 4096},
		"spans":      {member(t, writeTar(t, 200_000), "", 10_000), 50_000},
	} {
		dir := t.TempDir()
		out := filepath.Join(dir, "ztoc")
		runSOCI(t, "make", strconv.Itoa(c.span), writeFile(t, dir, "layer", c.blob), out)
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, "testdata", name+".layer.gz", member(t, c.blob, "", 1<<30))
		writeFile(t, "testdata", name+".ztoc.gz", member(t, b, "", 1<<30))
	}
}
