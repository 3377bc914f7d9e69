package tarscan

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
)

// umociProgram returns the path of umoci, "" if it cannot be used here: its
// unpacking wants to be root to make devices and give files away.
func umociProgram(t *testing.T) string {
	program, err := exec.LookPath("umoci")
	if err != nil || os.Getuid() != 0 {
		t.Logf("umoci is not compared: uid %d, %v", os.Getuid(), err)
		return ""
	}
	return program
}

// umociDifferences compares the files of a tar with those that umoci unpacks.
func (s *scannedTar) umociDifferences(t *testing.T, program string) []string {
	if s.err != nil {
		return nil
	}
	dir := t.TempDir()
	imageOf(t, filepath.Join(dir, "image"), s.data)
	cmd := exec.Command(program, "unpack", "--image", filepath.Join(dir, "image")+":x", filepath.Join(dir, "bundle"))
	if out, err := cmd.CombinedOutput(); err != nil {
		out = bytes.TrimSpace(out)
		return []string{fmt.Sprintf("umoci refuses it: %s", out[bytes.LastIndex(out, []byte(": "))+2:])}
	}
	got, want := s.files(t), unpackedFiles(t, filepath.Join(dir, "bundle", "rootfs"))
	var diffs []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] && (got[name] != "" || !isParent(name, got)) {
			diffs = append(diffs, fmt.Sprintf("%q is %q, umoci %q", name, got[name], want[name]))
		}
		delete(got, name)
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		diffs = append(diffs, fmt.Sprintf("%q is %q, umoci has none", name, got[name]))
	}
	return diffs
}

// imageOf makes an OCI layout of one layer.
func imageOf(t *testing.T, dir string, layer []byte) {
	write := func(name, text string) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put := func(kind, text string) string {
		sum := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
		write("blobs/sha256/"+sum, text)
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d`, kind, sum, len(text))
	}
	blob := put("layer.v1.tar", string(layer))
	config := put("config.v1+json", fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%x"]},"config":{}}`, sha256.Sum256(layer)))
	manifest := put("manifest.v1+json", fmt.Sprintf(`{"schemaVersion":2,"config":%s},"layers":[%s}]}`, config, blob))
	write("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	write("index.json", fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s,"annotations":{"org.opencontainers.image.ref.name":"x"}}]}`, manifest))
}

// files are what the entries leave if they are written one after the other:
// content by path, and what is not a file by its type and target.
func (s *scannedTar) files(t *testing.T) map[string]string {
	files := map[string]string{}
	for i := range s.entries {
		e := &s.entries[i]
		name := path.Clean("/" + e.Name)
		switch e.Type {
		case layerindex.TypeReg:
			content, err := io.ReadAll(scannedContent(s.data, e))
			if err != nil {
				t.Fatal(err)
			}
			files[name] = shortened(string(content))
		case layerindex.TypeSymlink:
			files[name] = "-> " + e.Linkname
		case layerindex.TypeLink:
			files[name] = files[path.Clean("/"+e.Linkname)]
		case layerindex.TypeDir:
			files[name] = "directory"
		default:
			files[name] = "special"
		}
	}
	return files
}

// isParent reports whether a directory needs no entry: there is one in it.
func isParent(name string, files map[string]string) bool {
	for file := range files {
		if strings.HasPrefix(file, name+"/") {
			return true
		}
	}
	return false
}

// shortened makes long contents readable in a message.
func shortened(content string) string {
	return strings.ReplaceAll(content, strings.Repeat("\x00", 512), "\x00*512")
}

func unpackedFiles(t *testing.T, root string) map[string]string {
	files := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == root {
			return err
		}
		inTar := strings.TrimPrefix(name, root)
		switch {
		case d.IsDir():
			files[inTar] = "directory"
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			files[inTar] = "-> " + target
			return err
		case d.Type().IsRegular():
			content, err := os.ReadFile(name)
			files[inTar] = shortened(string(content))
			return err
		default:
			files[inTar] = "special"
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
