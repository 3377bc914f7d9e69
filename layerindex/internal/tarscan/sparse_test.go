package tarscan

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"golang.org/x/sys/unix"
)

// TestScannerBigSparse: sparse files of gigabytes are what GNU tar extracts,
// every byte of data where it puts it and nothing elsewhere.
func TestScannerBigSparse(t *testing.T) {
	gnu := gnuTar()
	if gnu == "" {
		t.Skip("no GNU tar to compare with")
	}
	shared, err := sharedCorpus()
	if err != nil {
		t.Logf("no archives of other projects: %v", err)
	}
	dir := filepath.Join(shared, "tar")
	archives, _ := filepath.Glob(filepath.Join(dir, "libarchive", "test_read_format_gtar_sparse_1_*.tar"))
	if err == nil {
		archives = append(archives, filepath.Join(dir, "tar-rs", "sparse-large.tar"))
	}
	for _, path := range goVectors(t) {
		if strings.Contains(path, "-sparse-big") {
			archives = append(archives, path)
		}
	}
	for _, path := range archives {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, _ := decoded(t, path)
			entries, err := scanTar(data, 0, nil)
			if err != nil {
				t.Skipf("refused: %v", err) // see the golden files
			}
			dir := t.TempDir()
			cmd := exec.Command(gnu, "-xf", "-", "-C", dir)
			cmd.Stdin = bytes.NewReader(data)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Skipf("GNU tar can't extract it here: %v: %s", err, out)
			}
			for i := range entries {
				if e := &entries[i]; e.Sparse != nil {
					compareSparse(t, data, e, filepath.Join(dir, e.Name))
				}
			}
		})
	}
}

// compareSparse compares the runs of data that the file system knows of, and
// all extents.
func compareSparse(t *testing.T, tar []byte, e *layerindex.Entry, path string) {
	f, err := os.Open(path)
	if err != nil {
		t.Skipf("can't read what GNU tar extracted: %v", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != e.Size {
		t.Fatalf("size %d, GNU tar %v, %v", e.Size, info.Size(), err)
	}
	runs := e.Sparse[:len(e.Sparse):len(e.Sparse)]
	for off := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			t.Skipf("the file system doesn't tell holes: %v", err)
		}
		off, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil || off-start > 1<<30 {
			t.Skipf("the file system doesn't tell holes: run of %d bytes at %d, %v", off-start, start, err)
		}
		runs = append(runs, layerindex.Extent{Off: start, Size: off - start})
	}
	for _, run := range runs {
		want := make([]byte, run.Size)
		if _, err := f.ReadAt(want, run.Off); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if !bytes.Equal(sparseRange(tar, e, run), want) {
			t.Errorf("%d bytes at %d are not what GNU tar extracts", run.Size, run.Off)
		}
	}
}

// sparseRange returns a range of a sparse file.
func sparseRange(tar []byte, e *layerindex.Entry, run layerindex.Extent) []byte {
	b := make([]byte, run.Size)
	at := e.Off
	for _, x := range e.Sparse {
		from, to := max(x.Off, run.Off), min(x.Off+x.Size, run.Off+run.Size)
		if from < to {
			copy(b[from-run.Off:], tar[at+from-x.Off:at+to-x.Off])
		}
		at += x.Size
	}
	return b
}
