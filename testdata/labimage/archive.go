package labimage

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

// An Archive is the tar of a layer that is being written: a tar.Writer with
// a short way of saying the usual.
type Archive struct {
	*tar.Writer
	w io.Writer // what Writer writes to
}

func newArchive(w io.Writer) *Archive {
	return &Archive{Writer: tar.NewWriter(w), w: w}
}

// An Option changes an entry from what the method that writes it makes of it.
type Option func(*tar.Header)

// Mode sets the permission, setuid, setgid and sticky bits.
func Mode(mode int64) Option { return func(h *tar.Header) { h.Mode = mode } }

// Owner sets the numbers of user and group; they are 0 without it.
func Owner(uid, gid int) Option {
	return func(h *tar.Header) { h.Uid, h.Gid = uid, gid }
}

// ModTime sets the time of modification, to the nanosecond.
func ModTime(t time.Time) Option {
	return func(h *tar.Header) { h.ModTime, h.Format = t, tar.FormatPAX }
}

// Xattr sets an extended attribute.
func Xattr(name, value string) Option {
	return func(h *tar.Header) {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
		h.Format = tar.FormatPAX
	}
}

// GNU writes the entry in GNU tar's format, which has names of any bytes.
func GNU(h *tar.Header) { h.Format = tar.FormatGNU }

// add writes a header, and returns the error with the entry's name.
func (a *Archive) add(h tar.Header, opts []Option) error {
	h.ModTime = epoch
	for _, o := range opts {
		o(&h)
	}
	if err := a.WriteHeader(&h); err != nil {
		return fmt.Errorf("%q: %w", h.Name, err)
	}
	return nil
}

// Dir writes a directory of mode 0755.
func (a *Archive) Dir(name string, opts ...Option) error {
	return a.add(tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimSuffix(name, "/") + "/", Mode: 0o755}, opts)
}

// File writes a regular file of mode 0644.
func (a *Archive) File(name, content string, opts ...Option) error {
	return a.Copy(name, int64(len(content)), strings.NewReader(content), opts...)
}

// Copy writes a regular file of mode 0644 with size bytes of r.
func (a *Archive) Copy(name string, size int64, r io.Reader, opts ...Option) error {
	if err := a.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}, opts); err != nil {
		return err
	}
	if _, err := io.CopyN(a, r, size); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

// Symlink writes a symbolic link.
func (a *Archive) Symlink(name, target string, opts ...Option) error {
	return a.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, opts)
}

// Link writes a hard link to an entry before it.
func (a *Archive) Link(name, target string, opts ...Option) error {
	return a.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, opts)
}

// Fifo writes a named pipe of mode 0644.
func (a *Archive) Fifo(name string, opts ...Option) error {
	return a.add(tar.Header{Typeflag: tar.TypeFifo, Name: name, Mode: 0o644}, opts)
}

// Device writes a device of mode 0644; kind is tar.TypeChar or tar.TypeBlock.
func (a *Archive) Device(name string, kind byte, major, minor int64, opts ...Option) error {
	return a.add(tar.Header{Typeflag: kind, Name: name, Devmajor: major, Devminor: minor, Mode: 0o644}, opts)
}

// Whiteout says that a name of the layers below is gone.
func (a *Archive) Whiteout(name string) error {
	dir, base := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, base = name[:i+1], name[i+1:]
	}
	return a.File(dir+".wh."+base, "")
}

// Opaque says that all that the layers below have in a directory is gone.
func (a *Archive) Opaque(dir string) error {
	return a.File(strings.TrimSuffix(dir, "/")+"/.wh..wh..opq", "")
}

// A Chunk is a run of data in a sparse file.
type Chunk struct {
	Off  int64
	Data string
}

// Sparse writes a sparse file of mode 0644 in the PAX format, version 1.0, of
// GNU tar, which archive/tar reads but does not write.
func (a *Archive) Sparse(name string, size int64, chunks ...Chunk) error {
	var body bytes.Buffer
	fmt.Fprintf(&body, "%d\n", len(chunks))
	for _, c := range chunks {
		fmt.Fprintf(&body, "%d\n%d\n", c.Off, len(c.Data))
	}
	body.Write(padding(body.Len()))
	for _, c := range chunks {
		body.WriteString(c.Data)
	}
	var pax strings.Builder
	for _, r := range [][2]string{
		{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"},
		{"GNU.sparse.name", name}, {"GNU.sparse.realsize", fmt.Sprint(size)},
	} {
		pax.WriteString(paxRecord(r[0], r[1]))
	}
	if err := a.raw('x', "PaxHeaders.0/sparse", pax.String()); err != nil {
		return err
	}
	return a.raw(tar.TypeReg, "GNUSparseFile.0/sparse", body.String())
}

// raw writes an entry without archive/tar.
func (a *Archive) raw(kind byte, name, body string) error {
	if err := a.Flush(); err != nil {
		return err
	}
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00        %c",
		0o644, 0, 0, len(body), epoch.Unix(), kind))
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	b = append(b, body...)
	_, err := a.w.Write(append(b, padding(len(body))...))
	return err
}

// padding returns what fills n bytes up to whole blocks.
func padding(n int) []byte { return make([]byte, -n&511) }

// paxRecord returns "length key=value\n", where length counts itself.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest) + 1
	for len(fmt.Sprint(n))+len(rest) > n {
		n++
	}
	return fmt.Sprint(n) + rest
}
