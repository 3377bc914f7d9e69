//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// tarFiles writes a tar of files: name and content in turn. A name that ends with a
// slash is a directory, one with -> a symlink, and one with ->= a hard link.
func tarFiles(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for f := range slices.Chunk(files, 2) {
		h := tar.Header{Typeflag: tar.TypeReg, Name: f[0], Mode: 0o644, Size: int64(len(f[1]))}
		if name, target, ok := strings.Cut(f[0], "->"); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeSymlink, name, target
			if file, ok := strings.CutPrefix(target, "="); ok {
				h.Typeflag, h.Linkname = tar.TypeLink, file
			}
		} else if strings.HasSuffix(f[0], "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layersImage writes a layout of plain layers, whose config has a history, and returns its
// name.
func layersImage(t *testing.T, history any, layers ...[]byte) string {
	t.Helper()
	store := sourcetest.NewStore()
	img := sourcetest.Image{}
	if history != nil {
		img.Config = map[string]any{"history": history}
	}
	for _, l := range layers {
		img.Layers = append(img.Layers, sourcetest.Layer{Content: l})
	}
	dir := filepath.Join(t.TempDir(), "layout")
	if err := store.WriteLayout(dir, sourcetest.Tagged(store.AddImage(img), "v1")); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir + ":v1"
}

type step = map[string]any

// cookedSteps are a history of three layers.
var cookedSteps = []step{
	{"created": "2024-01-02T03:04:05.6Z", "created_by": "ADD file:1 in /"},
	{"created": "2024-01-02T03:04:06Z", "created_by": `/bin/sh -c #(nop)  CMD ["sh"]`, "empty_layer": true},
	{"created": "2024-03-04T05:06:07Z", "created_by": "/bin/sh -c apt-get install\tx \n && rm -rf\x1b /old", "comment": "why"},
	{"created": "2024-03-04T05:06:08Z", "created_by": "RUN /bin/sh -c touch /x # buildkit"},
	{"created": "2024-03-04T05:06:09Z", "comment": "only this", "empty_layer": true},
}

// cookedImage has files that later layers replace and hide.
func cookedImage(t *testing.T, history any) string {
	return layersImage(t, history,
		tarFiles(t, "etc/passwd", "root:x:0:0::/root:/bin/sh\n", "old/a", "12345", "old/b/c", "1", "bin->usr/bin", "", "usr/bin/sh", "one"),
		tarFiles(t, ".wh.old", "", "usr/bin/sh", "second", "new", "n"),
		tarFiles(t, "usr/bin/", "", "x", ""))
}

func TestHistory(t *testing.T) {
	alone(t)
	cache := t.TempDir()
	image := cookedImage(t, cookedSteps)
	text := succeed(t, "history", "-q", "--cache-dir", cache, image)
	var got []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if words[0] != "-" && words[0] != "LAYER" {
			words = slices.Delete(words, 3, 5) // digests
			words = slices.Delete(words, 1, 3) // and the size
		}
		got = append(got, strings.Join(words, " "))
	}
	want := []string{
		"LAYER SIZE DIGEST DIFFID CREATED ADDS HIDES COMMAND",
		"- - - - 2024-03-04 - - only this",
		"3 2024-03-04 1, 0 B - RUN touch /x",
		`2 2024-03-04 2, 7 B 4, 6 B RUN apt-get install x && rm -rf\x1b /old`,
		`- - - - 2024-01-02 - - CMD ["sh"]`,
		"1 2024-01-02 11, 35 B - ADD file:1 in /",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var rows []historyRow
	if err := show.Unmarshal([]byte(succeed(t, "history", "-q", "--json", "--cache-dir", cache, image)), &rows); err != nil {
		t.Fatal(err)
	}
	second := rows[2]
	if len(rows) != 5 || second.Layer != 2 || second.CreatedBy != cookedSteps[2]["created_by"] || second.Comment != "why" || second.Created != "2024-03-04T05:06:07Z" || second.Digest == "" || second.Size == 0 {
		t.Errorf("got %+v", rows)
	}
	if want := (layerEffect{Added: pathCount{1, 1}, Replaced: pathCount{1, 6}, Hidden: pathCount{4, 6}}); second.layerEffect != want {
		t.Errorf("layer 2: got %+v, want %+v", second.layerEffect, want)
	}
	if base := rows[4]; base.Useless != 9 {
		t.Errorf("the base has %d useless bytes, want 9", base.Useless)
	}
	for _, flag := range []string{"--bytes", "--human=false"} {
		if text := succeed(t, "history", "-q", "--cache-dir", cache, flag, image); strings.Contains(text, "kB") || !strings.Contains(text, "11, 35 ") {
			t.Errorf("%s: got\n%s", flag, text)
		}
	}
	if text := succeed(t, "history", "-q", "--cache-dir", cache, "--no-trunc", image); !strings.Contains(text, "sha256:") || !strings.Contains(text, `/bin/sh -c #(nop) CMD ["sh"]`) {
		t.Errorf("--no-trunc: got\n%s", text)
	}
}

// TestHistoryMisfits has configs whose history is not that of the layers.
func TestHistoryMisfits(t *testing.T) {
	alone(t)
	for _, c := range []struct {
		name    string
		history any
		says    string
		rows    int
	}{
		{"none", nil, "the image does not tell how its layers were made", 3},
		{"shorter", cookedSteps[3:], "tells of 1 layer, and it has 3", 4},
		{"longer", append(cookedSteps[:1:1], cookedSteps...), "tells of 4 layers, and it has 3", 6},
		{"no list", "history", "cannot be read", 3},
		{"no steps", []any{1, "\x1b[31m", nil}, "cannot be read", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := invoke(t, "history", "--cache-dir", t.TempDir(), cookedImage(t, c.history))
			if n := strings.Count(r.stdout, "\n") - 1; r.code != 0 || n != c.rows || !strings.Contains(r.stderr, c.says) {
				t.Errorf("got exit code %d and %d rows, want %d; stderr, which should have %q:\n%s%s", r.code, n, c.rows, c.says, r.stderr, r.stdout)
			}
		})
	}
}

// TestHistoryOffline: where the indexes are, no layer is needed.
func TestHistoryOffline(t *testing.T) {
	alone(t)
	image := cookedImage(t, cookedSteps)
	cache := t.TempDir()
	want := succeed(t, "history", "-q", "--cache-dir", cache, image)
	layout := strings.TrimSuffix(strings.TrimPrefix(image, "oci:"), ":v1")
	layers := 0
	for _, name := range filesBelow(t, filepath.Join(layout, "blobs")) {
		path := filepath.Join(layout, "blobs", name)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(content) { // a layer
			layers++
			if err := os.WriteFile(path, make([]byte, len(content)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := succeed(t, "history", "-q", "--cache-dir", cache, image); got != want || layers != 3 {
		t.Errorf("without %d layers: got\n%swant\n%s", layers, got, want)
	}
}

// TestHistoryIsPodmans compares rows with those of podman.
func TestHistoryIsPodmans(t *testing.T) {
	testenv.Slow(t)
	needRoot(t)
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed: apt-get install podman")
	}
	alone(t)
	dir, err := os.MkdirTemp("/tmp", "pm") // podman takes no long path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	podman := func(args ...string) string {
		return tool(t, "podman", append([]string{"--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}, args...)...)
	}
	image := cookedImage(t, cookedSteps)
	copied := filepath.Join(dir, "layout") // podman wants a name in lower case
	if err := os.CopyFS(copied, os.DirFS(strings.TrimSuffix(strings.TrimPrefix(image, "oci:"), ":v1"))); err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(podman("pull", "-q", "oci:"+copied+":v1"))
	var want []struct {
		Created   time.Time `json:"created"`
		CreatedBy string
		Comment   string `json:"comment"`
		Size      int64  `json:"size"`
	}
	if err := json.Unmarshal([]byte(podman("history", "--format", "json", "--no-trunc", words[len(words)-1])), &want); err != nil {
		t.Fatal(err)
	}
	var got []historyRow
	if err := show.Unmarshal([]byte(succeed(t, "history", "-q", "--json", "--cache-dir", t.TempDir(), image)), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("got %d steps, podman has %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		created, err := time.Parse(time.RFC3339Nano, g.Created)
		if err != nil || !created.Truncate(time.Second).Equal(w.Created) || g.CreatedBy != w.CreatedBy || g.Comment != w.Comment || (g.Layer == 0) != (w.Size == 0) {
			t.Errorf("step %d: error %v; got %+v, podman has %+v", i, err, g, w)
		}
	}
}
