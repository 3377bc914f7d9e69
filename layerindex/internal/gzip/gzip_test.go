package gzip

import (
	"bytes"
	stdgzip "compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"testing/iotest"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// text returns n bytes of which an encoder finds about a third to be new, with
// stretches that do not compress and stretches that do all too well.
func text(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	p := make([]byte, 0, n+5000)
	for len(p) < n {
		switch k := rng.IntN(60); {
		case k == 0:
			for range 5000 {
				p = append(p, byte(rng.Uint32()))
			}
		case k == 1:
			p = append(p, make([]byte, 5000)...)
		case k < 20 && len(p) > 0:
			from := max(0, len(p)-1-rng.IntN(60_000))
			p = append(p, p[from:min(len(p), from+rng.IntN(400))]...)
		default:
			p = fmt.Appendf(p, "%d: func (%c *Reader) Read%x() error {\n", rng.IntN(1000), 'a'+rng.IntN(26), rng.IntN(1<<20))
		}
	}
	return p[:n]
}

// decodeAll decodes all of d, and returns the checkpoints if it is an Indexer.
func decodeAll(d codec.Decoder) ([]byte, []codec.Checkpoint, error) {
	var got []byte
	var cps []codec.Checkpoint
	for {
		p, err := d.Next()
		got = append(got, p...)
		if x, ok := d.(*Indexer); ok {
			cps = append(cps, x.Checkpoints()...)
		}
		if err == io.EOF {
			return got, cps, nil
		}
		if err != nil {
			return got, cps, err
		}
		if len(p) == 0 {
			return got, cps, errors.New("empty piece")
		}
	}
}

// index decodes a file with checkpoints as dense as they can be.
func index(file []byte) ([]byte, []codec.Checkpoint, error) {
	return decodeAll(NewIndexer(bytes.NewReader(file), &Options{SpanOut: 1, SpanIn: 1}))
}

// zip compresses p as one member.
func zip(t testing.TB, p []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := stdgzip.NewWriter(&buf)
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// wrap makes a member of a DEFLATE stream.
func wrap(stream, p []byte) []byte {
	file := append([]byte{magic0, magic1, deflate, 0, 0, 0, 0, 0, 0, 255}, stream...)
	file = binary.LittleEndian.AppendUint32(file, crc32.ChecksumIEEE(p))
	return binary.LittleEndian.AppendUint32(file, uint32(len(p)))
}

// poisoned returns w with the bytes that it does not have set to 0xa5.
func poisoned(w codec.Window) codec.Window {
	p := bytes.Repeat([]byte{0xa5}, 32<<10)
	data := w.Data
	for _, r := range w.Runs {
		copy(p[r.Off:int(r.Off)+int(r.Len)], data)
		data = data[r.Len:]
	}
	return codec.Window{Runs: []codec.Run{{Len: 32 << 10}}, Data: p}
}

// checkCheckpoints checks that checkpoints are in order, and that decoding from
// each of them is like decoding from the start.
func checkCheckpoints(t *testing.T, d *Decoder, file, want []byte, cps []codec.Checkpoint) {
	t.Helper()
	if len(cps) == 0 || cps[0].In != 0 || cps[0].Bit != 0 || cps[0].Out != 0 || !cps[0].Start {
		t.Fatalf("got first checkpoint %+v, want the start", cps[:min(1, len(cps))])
	}
	checkResume(t, d, file, want, cps)
}

// checkResume is checkCheckpoints for a list that need not begin with the start.
func checkResume(t *testing.T, d *Decoder, file, want []byte, cps []codec.Checkpoint) {
	t.Helper()
	for i, cp := range cps {
		if i > 0 && cp.Out <= cps[i-1].Out || cp.Out >= int64(len(want)) && cp.Out > 0 {
			t.Fatalf("checkpoint %d is at %d of %d, after %d", i, cp.Out, len(want), cps[max(i, 1)-1].Out)
		}
		if cp.Start && (cp.Bit != 0 || cp.Symbol != 0 || cp.Window.Runs != nil) {
			t.Fatalf("checkpoint %d is a start, but %+v", i, cp)
		}
		if !cp.Start {
			cp.Window = poisoned(cp.Window)
		}
		if d.s.inf == nil {
			made, err := Resume(bytes.NewReader(file[cp.In:]), cp)
			if err != nil {
				t.Fatal(err)
			}
			*d = *made
		} else if err := d.Reset(bytes.NewReader(file[cp.In:]), cp); err != nil {
			t.Fatal(err)
		}
		// Windows are used up after 32 KiB, so not all need go on to the end.
		tail := want[cp.Out:]
		if i%8 != 0 {
			tail = tail[:min(len(tail), 100<<10)]
		}
		got, err := decodeSome(d, len(tail))
		if err != nil || !bytes.HasPrefix(got, tail) || len(got) > len(want)-int(cp.Out) {
			t.Fatalf("resume at byte %d bit %d symbol %d (%d of output): got %d bytes, want %d, %v",
				cp.In, cp.Bit, cp.Symbol, cp.Out, len(got), len(tail), err)
		}
	}
}

// decodeSome decodes n bytes and the rest of their piece; and to the end if
// that is where they end.
func decodeSome(d *Decoder, n int) ([]byte, error) {
	var got []byte
	for {
		p, err := d.Next()
		got = append(got, p...)
		if err == io.EOF || err == nil && len(got) > n {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

func TestSpacing(t *testing.T) {
	unit := int64(inflatetest.Scale(1 << 20))
	want := text(8*int(unit), 3)
	file := zip(t, want)
	for name, c := range map[string]struct {
		opts     Options
		min, max int // number of checkpoints
	}{
		"usual":  {Options{SpanOut: unit, SpanIn: unit / 8, SpanMax: 4 * unit}, 6, 8},
		"dense":  {Options{SpanOut: unit / 3, SpanIn: 1, SpanMax: 4 * unit}, 14, 24},
		"by max": {Options{SpanOut: 1 << 40, SpanMax: 2 * unit}, 3, 4},
		"by in":  {Options{SpanOut: 1, SpanIn: unit / 2, SpanMax: 1 << 40}, 3, 9},
	} {
		x := NewIndexer(bytes.NewReader(file), &c.opts)
		got, cps, err := decodeAll(x)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: got %d bytes, %v", name, len(got), err)
		}
		if len(cps) < c.min || len(cps) > c.max {
			t.Errorf("%s: got %d checkpoints, want %d to %d", name, len(cps), c.min, c.max)
		}
		bytesKept := 0
		for _, cp := range cps {
			bytesKept += len(cp.Window.Data)
		}
		if bytesKept == 0 || bytesKept > len(cps)*(32<<10)*2/3 {
			t.Errorf("%s: windows keep %d bytes for %d checkpoints, want sparse ones", name, bytesKept, len(cps))
		}
	}
}

// TestGiantBlock has one block of 20 MiB, which is five times SpanMax.
func TestGiantBlock(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	unit := inflatetest.Scale(1 << 20)
	var w inflatetest.Writer
	w.Fixed(true)
	w.Literals(text(1000, 1)...)
	for len(w.Want) < 20*unit {
		w.Literals(byte(rng.Uint32()))
		w.Match(3+rng.IntN(20), 1+rng.IntN(min(len(w.Want), 32<<10)))
	}
	w.End()
	file := wrap(w.Bytes(), w.Want)
	got, cps, err := decodeAll(NewIndexer(bytes.NewReader(file), &Options{
		SpanOut: int64(unit), SpanIn: int64(unit / 8), SpanMax: int64(4 * unit),
	}))
	if err != nil || !bytes.Equal(got, w.Want) {
		t.Fatalf("got %d bytes, want %d, %v", len(got), len(w.Want), err)
	}
	if len(cps) < 8 || cps[1].Out > int64(9*unit) {
		t.Fatalf("got %d checkpoints, the second at %d", len(cps), cps[min(1, len(cps)-1)].Out)
	}
	for _, cp := range cps[1:] {
		if cp.Symbol == 0 {
			t.Fatalf("got %+v in the midst of a block", cp)
		}
	}
	checkCheckpoints(t, new(Decoder), file, w.Want, cps)
}

func TestMembers(t *testing.T) {
	testenv.Slow(t)
	one := zip(t, []byte("x"))
	empty := zip(t, nil)
	long := text(300_000, 9)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	many := inflatetest.Scale(200_000)
	for name, c := range map[string]struct {
		file, want []byte
		starts     int
	}{
		"empty":         {empty, nil, 1},
		"only empty":    {bytes.Repeat(empty, 1000), nil, 1},
		"empty first":   {join(empty, empty, one), []byte("x"), 1},
		"single bytes":  {bytes.Repeat(one, many), bytes.Repeat([]byte("x"), many), 1 + (many-1)>>16},
		"long":          {join(zip(t, long), zip(t, long), empty, zip(t, long)), bytes.Repeat(long, 3), 3},
		"long and last": {join(zip(t, long), empty), long, 1},
	} {
		got, cps, err := decodeAll(NewIndexer(bytes.NewReader(c.file), nil))
		if err != nil || !bytes.Equal(got, c.want) {
			t.Fatalf("%s: got %d bytes, want %d, %v", name, len(got), len(c.want), err)
		}
		if len(cps) != c.starts {
			t.Errorf("%s: got %d checkpoints, want %d", name, len(cps), c.starts)
		}
		for _, cp := range cps {
			if !cp.Start {
				t.Errorf("%s: got %+v, want only starts of members", name, cp)
			}
		}
		checkCheckpoints(t, new(Decoder), c.file, c.want, cps)
		got, cps, err = index(c.file)
		if err != nil || !bytes.Equal(got, c.want) {
			t.Fatalf("%s: densely, got %d bytes, %v", name, len(got), err)
		}
		checkCheckpoints(t, new(Decoder), c.file, c.want, cps)
	}
}

// header returns a header with all fields, and its correct CRC.
func header(flags byte) []byte {
	h := []byte{magic0, magic1, deflate, flags, 1, 2, 3, 4, 2, 3}
	if flags&flagExtra != 0 {
		h = append(h, 0x2c, 1) // 300 bytes
		h = append(h, bytes.Repeat([]byte("extra"), 60)...)
	}
	if flags&flagName != 0 {
		h = append(h, "näme\x00"...)
	}
	if flags&flagComment != 0 {
		h = append(h, bytes.Repeat([]byte("long comment"), 100)...)
		h = append(h, 0)
	}
	if flags&flagHeaderCRC != 0 {
		h = binary.LittleEndian.AppendUint16(h, uint16(crc32.ChecksumIEEE(h)))
	}
	return h
}

func TestHeaders(t *testing.T) {
	body := zip(t, []byte("content"))[10:]
	for flags := range 256 {
		file := append(header(byte(flags)), body...)
		got, _, err := index(file)
		if flags&flagReserved != 0 {
			if !errors.Is(err, codec.ErrFormat) {
				t.Errorf("flags %#x: got %v, want them refused", flags, err)
			}
			continue
		}
		if err != nil || string(got) != "content" {
			t.Errorf("flags %#x: got %q, %v", flags, got, err)
		}
		for n := flags; n < len(file); n += 41 {
			if _, _, err := decodeAll(NewIndexer(iotest.DataErrReader(bytes.NewReader(file[:n])), nil)); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("flags %#x cut at %d: got %v, want unexpected EOF", flags, n, err)
			}
		}
		if flags&flagHeaderCRC != 0 {
			file[8] ^= 4
			if _, _, err := index(file); !errors.Is(err, codec.ErrFormat) {
				t.Errorf("flags %#x with a damaged header: got %v, want it refused", flags, err)
			}
		}
	}
}

// TestTrailing has what GNU gzip 1.12 does about what is behind the last member.
func TestTrailing(t *testing.T) {
	format, short := codec.ErrFormat, io.ErrUnexpectedEOF
	for _, c := range []struct {
		behind string
		want   error
	}{
		{"", nil},
		{"\x00", nil},
		{string(make([]byte, 100_000)), nil},
		{"\x00x", nil},
		{"\x00\x00\x1f\x8b\x08", nil},
		{"xy", nil},
		{"garbage" + string(make([]byte, 1<<20)), nil},
		{"\x1fx", nil},
		{"PK\x03\x04abc", nil},
		{"x", short},
		{"\x1f", short},
		{"\x1f\x8b", short},
		{"\x1f\x8b\x08", short},
		{"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", short},
		{"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x07", format},
		{"\x1f\x8b\x07abcdefgh", format},
		{"\x1f\x8b\x08\x20abcdefgh", format},
		{"\x1f\x8b\x08\x80abcdefgh", format},
		{"\x1f\x9dabcd", format},
		{"\x1f\x9e\x08abcd", format},
		{"\x1f\x1eabcd", format},
		{"\x1f\xa0abcd", format},
	} {
		file := append(zip(t, []byte("hello")), c.behind...)
		src := bytes.NewReader(file)
		got, _, err := decodeAll(NewIndexer(src, nil))
		if !errors.Is(err, c.want) || string(got) != "hello" {
			t.Errorf("%.20q behind: got %q, %v, want %v", c.behind, got, err, c.want)
		}
		if c.want == nil && src.Len() != 0 {
			t.Errorf("%.20q behind: %d bytes are not read", c.behind, src.Len())
		}
		if c.want == nil && err == nil {
			d, err := Resume(bytes.NewReader(file), codec.Checkpoint{Start: true})
			if err != nil {
				t.Fatal(err)
			}
			if got, _, err := decodeAll(d); err != nil || string(got) != "hello" {
				t.Errorf("%.20q behind, resumed: got %q, %v", c.behind, got, err)
			}
		}
		compareWithProgram(t, file, got, c.want == nil)
	}
}

// compareWithProgram checks that GNU gzip accepts a file, perhaps with a
// warning, or does not, and that it gives the same bytes.
func compareWithProgram(t *testing.T, file, got []byte, want bool) {
	t.Helper()
	if out, err := exec.Command("gzip", "--version").Output(); err != nil || !bytes.HasPrefix(out, []byte("gzip 1.")) {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no GNU gzip: %v", err)
		}
		return
	}
	cmd := exec.Command("gzip", "-dc")
	cmd.Stdin = bytes.NewReader(file)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if got := err == nil || errors.As(err, &exit) && exit.ExitCode() == 2; got != want {
		t.Errorf("%.40q: GNU gzip accepts it: %v, want %v", file[len(file)-min(len(file), 20):], got, want)
	}
	if want && !bytes.Equal(out, got) {
		t.Errorf("%.40q: GNU gzip gives %d bytes, and not these %d", file[len(file)-min(len(file), 20):], len(out), len(got))
	}
}

// TestLongHeaders has fields as long as they can be, and longer than buffers.
func TestLongHeaders(t *testing.T) {
	body := zip(t, []byte("content"))[10:]
	long := bytes.Repeat([]byte("x"), 600_000)
	for name, field := range map[string]struct {
		flag byte
		data []byte
	}{
		"extra field of 65535 bytes": {flagExtra, append([]byte{0xff, 0xff}, long[:65535]...)},
		"empty extra field":          {flagExtra, []byte{0, 0}},
		"long name":                  {flagName, append(long[:600_000:600_000], 0)},
		"empty name":                 {flagName, []byte{0}},
		"long comment":               {flagComment, append(long[:600_000:600_000], 0)},
	} {
		head := append([]byte{magic0, magic1, deflate, field.flag | flagHeaderCRC, 1, 2, 3, 4, 2, 3}, field.data...)
		head = binary.LittleEndian.AppendUint16(head, uint16(crc32.ChecksumIEEE(head)))
		one := append(head, body...)
		file := append(one[:len(one):len(one)], one...)
		got, cps, err := index(file)
		if err != nil || string(got) != "contentcontent" {
			t.Errorf("%s: got %q, %v", name, got, err)
			continue
		}
		checkCheckpoints(t, new(Decoder), file, got, cps)
		compareWithProgram(t, file, got, true)
	}
}

func TestNotGzip(t *testing.T) {
	for file, want := range map[string]error{
		"":             io.ErrUnexpectedEOF,
		"\x1f":         io.ErrUnexpectedEOF,
		"\x00\x00\x00": codec.ErrFormat,
		"\x1f\x9dabc":  codec.ErrFormat,
		"ustar":        codec.ErrFormat,
	} {
		x := NewIndexer(bytes.NewReader([]byte(file)), nil)
		_, _, err := decodeAll(x)
		var at *codec.Error
		if !errors.Is(err, want) || !errors.As(err, &at) {
			t.Errorf("%q: got %v, want %v", file, err, want)
		}
		if _, again := x.Next(); again != err {
			t.Errorf("%q: the second time got %v, want %v", file, again, err)
		}
	}
}
