package tarscan

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// A chooser makes tars of a fuzzer's bytes.
type chooser struct{ samples.Chooser }

// FuzzScannerValid has archive/tar write a tar. Whatever that writes, Scanner
// reads as it was meant: all attributes, and the content where Off says.
func FuzzScannerValid(f *testing.F) {
	samples.SeedBytes(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &chooser{samples.Chooser{Data: data}}
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		var want []*tar.Header
		var contents []string
		for range 1 + c.IntN(6) {
			h, content := c.header()
			if err := w.WriteHeader(h); err != nil {
				continue // no tar has this
			}
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
			if h.Typeflag != tar.TypeXGlobalHeader {
				want, contents = append(want, h), append(contents, content)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		compareWritten(t, buf.Bytes(), want, contents)
	})
}

// header makes a header as archive/tar takes it, and the content of its entry.
func (c *chooser) header() (*tar.Header, string) {
	h := &tar.Header{
		Typeflag: samples.Pick(&c.Chooser, byte(tar.TypeReg), tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeCont),
		Name:     c.Name(), Mode: int64(c.Number() & 07777),
		Uid: int(c.Number() % (maxOwner + 1)), Gid: int(c.Number() % (maxOwner + 1)),
		Uname: c.Text(5), Gname: samples.Pick(&c.Chooser, "", "root", c.Text(40)),
		ModTime: time.Unix(int64(c.Number())>>10*samples.Pick[int64](&c.Chooser, 1, -1), int64(c.Number()%1e9)),
		Format:  samples.Pick(&c.Chooser, tar.FormatUnknown, tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU),
	}
	if c.IntN(6) == 0 {
		h = &tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": c.Name(), "comment": c.Text(20)}}
		return h, ""
	}
	if h.Format == tar.FormatUnknown || h.Format == tar.FormatUSTAR {
		h.ModTime = h.ModTime.Truncate(time.Second) // it would be rounded
	}
	content := ""
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont:
		content = strings.Repeat(c.Text(40), 1+c.IntN(40))
		h.Size = int64(len(content))
	case tar.TypeLink, tar.TypeSymlink:
		h.Linkname = samples.Pick(&c.Chooser, "a", c.Name(), strings.Repeat("../", c.IntN(200))+"t")
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = int64(c.Number()%4096), int64(c.Number()%(1<<20))
	}
	if n := c.IntN(4); n > 0 && (h.Format == tar.FormatPAX || h.Format == tar.FormatUnknown) {
		h.PAXRecords = map[string]string{}
		for range n {
			h.PAXRecords[xattrPrefix+"user."+strings.ReplaceAll(c.Text(9), "=", "-")] = "v" + string(byte(c.IntN(256))) + c.Text(300)
		}
	}
	return h, content
}

func compareWritten(t *testing.T, data []byte, want []*tar.Header, contents []string) {
	t.Helper()
	entries, err := scanTar(data, 0, nil)
	i := 0
	for ; i < len(want) && i < len(entries); i++ {
		g, e := convertGo(want[i]), &entries[i]
		if g.odd != "" {
			return // Scanner says that it reads this in another way
		}
		if want[i].Format == tar.FormatGNU {
			g.ModNsec = 0 // it has none
		}
		if diff, _ := compareGo(data, e, g, strings.NewReader(contents[i])); diff != "" {
			t.Errorf("entry %d: %s", i+1, diff)
		}
		if e.Type == layerindex.TypeReg && string(data[e.Off:e.Off+e.Size]) != contents[i] {
			t.Errorf("entry %d: other content at %d", i+1, e.Off)
		}
	}
	if i < len(want) && convertGo(want[i]).odd != "" {
		return
	}
	if err != nil || len(entries) != len(want) {
		t.Errorf("%d entries, error %v, want %d", len(entries), err, len(want))
	}
}
