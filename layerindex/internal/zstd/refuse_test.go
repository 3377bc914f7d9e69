package zstd

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// small is a stream with all that the format has around blocks, frame by
// frame.
func small(t testing.TB) (stream [][]byte, data []byte) {
	a, b := text(250), noise(80)
	b = append(b, make([]byte, 2000)...)
	stream = [][]byte{encode(t, a), skippable(2, "abc"), streamed(t, b), encode(t, nil), encode(t, a)}
	return stream, slices.Concat(a, b, a)
}

func TestRefuse(t *testing.T) {
	data := text(400_000)
	good := encode(t, data)
	tests := []struct {
		name    string
		stream  []byte
		want    error
		message string
		in      int // where, -1: anywhere
	}{
		{"empty", nil, io.ErrUnexpectedEOF, "", 0},
		{"one byte behind", append(good[:len(good):len(good)], 'x'), io.ErrUnexpectedEOF, "", len(good)},
		{"zero behind", append(good[:len(good):len(good)], 0), io.ErrUnexpectedEOF, "", len(good)},
		{"four bytes behind", append(good[:len(good):len(good)], "garb"...), codec.ErrFormat, "no zstd frame", len(good)},
		{"zeros behind", append(good[:len(good):len(good)], make([]byte, 512)...), codec.ErrFormat, "no zstd frame", len(good)},
		{"gzip behind", append(good[:len(good):len(good)], 0x1f, 0x8b, 8, 0), codec.ErrFormat, "no zstd frame", len(good)},
		{"skippable frame cut", append(good[:len(good):len(good)], skippable(0, "abc")[:10]...), io.ErrUnexpectedEOF, "", -1},
		{"skippable frame without size", append(good[:len(good):len(good)], skippable(0, "abc")[:6]...), io.ErrUnexpectedEOF, "", len(good)},
		{"skippable frame of 4 GiB", []byte("\x50\x2a\x4d\x18\xff\xff\xff\xff abc"), io.ErrUnexpectedEOF, "", -1},
		{"not zstd", []byte("this is not zstd"), codec.ErrFormat, "no zstd frame", 0},
		{"window of 128 MiB and more", []byte("\x28\xb5\x2f\xfd\x00\x89\x01\x00\x00"), codec.ErrFormat, "window of 150994944 bytes", 0},
		{"window of 3.75 TiB", []byte("\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00"), codec.ErrFormat, "window of 4123168604160 bytes", 0},
		{"single segment of 2 GiB", []byte("\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x80\x01\x00\x00"), codec.ErrFormat, "window of 2147483648 bytes", 0},
		{"single segment of all ones", []byte("\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00"), codec.ErrFormat, "window of", 0},
		{"dictionary", []byte("\x28\xb5\x2f\xfd\x21\x07\x01\x01\x00\x00x"), codec.ErrFormat, "dictionary 7", 0},
		{"reserved bit", []byte("\x28\xb5\x2f\xfd\x28\x01\x09\x00\x00x"), codec.ErrFormat, "reserved bit", 0},
		{"reserved block", []byte("\x28\xb5\x2f\xfd\x20\x01\x0f\x00\x00x"), codec.ErrFormat, "", -1},
		{"block of 2 MiB", []byte("\x28\xb5\x2f\xfd\x00\x60\xfb\xff\xffx"), codec.ErrFormat, "", -1},
		{"content longer than said", []byte("\x28\xb5\x2f\xfd\x20\x01\x11\x00\x00xy"), codec.ErrFormat, "", 0},
		{"content shorter than said", []byte("\x28\xb5\x2f\xfd\x20\x03\x11\x00\x00xy"), codec.ErrFormat, "", 0},
		{"wrong checksum", flip(encode(t, data[:5000]), -1), codec.ErrFormat, "", 0},
		{"wrong checksum of a long frame", flip(good, -1), codec.ErrFormat, "", -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := drain(NewIndexer(bytes.NewReader(tt.stream), nil))
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("got error %v, want %v, %q", err, tt.want, tt.message)
			}
			var place *codec.Error
			if !errors.As(err, &place) || place.In < 0 || tt.in >= 0 && place.In != int64(tt.in) {
				t.Errorf("got error %v, want it at byte %d", err, tt.in)
			}
			if !bytes.HasPrefix(data, got) {
				t.Errorf("got %d wrong bytes", len(got))
			}
			// The program also knows gzip, when it is built so.
			if out, err := program(t, tt.stream, "-d"); err == nil && tt.name != "gzip behind" {
				t.Errorf("zstd -d takes it, and gives %d bytes", len(out))
			}
		})
	}
}

// flip inverts the lowest bit of a byte; i counts from the end if negative.
func flip(b []byte, i int) []byte {
	b = slices.Clone(b)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 1
	return b
}

func TestDictionary(t *testing.T) {
	dir := t.TempDir()
	var samples []string
	for i := range 200 {
		name := filepath.Join(dir, "sample"+string(rune('a'+i%26))+string(rune('a'+i/26)))
		if err := os.WriteFile(name, text(2000+i), 0o600); err != nil {
			t.Fatal(err)
		}
		samples = append(samples, name)
	}
	dict := filepath.Join(dir, "dict")
	compress(t, nil, append([]string{"--train", "-o", dict, "--maxdict=4000"}, samples...)...)
	stream := compress(t, text(2001), "-D", dict)
	got, err := drain(NewIndexer(bytes.NewReader(stream), nil))
	if !errors.Is(err, codec.ErrFormat) || !strings.Contains(err.Error(), "dictionary") || len(got) > 0 {
		t.Errorf("got %d bytes, error %v; want a refusal", len(got), err)
	}
}

func TestMaxWindow(t *testing.T) {
	data := text(3 << 20)
	stream := encode(t, data, zstd.WithWindowSize(2<<20), zstd.WithSingleSegment(false))
	for _, tt := range []struct {
		limit int64
		ok    bool
	}{{0, true}, {2 << 20, true}, {2<<20 - 1, false}, {1, false}, {1 << 40, true}} {
		got, err := drain(NewIndexer(bytes.NewReader(stream), &Options{MaxWindow: tt.limit}))
		if tt.ok && (err != nil || !bytes.Equal(got, data)) {
			t.Errorf("window of 2 MiB, limit %d: got %d bytes, error %v", tt.limit, len(got), err)
		}
		if !tt.ok && (!errors.Is(err, codec.ErrFormat) || !strings.Contains(err.Error(), "window of 2097152 bytes")) {
			t.Errorf("window of 2 MiB, limit %d: got error %v, want a refusal", tt.limit, err)
		}
	}
}

// A stream that ends early is an error unless it ends between frames, and
// gives no wrong bytes.
func TestTruncated(t *testing.T) {
	parts, data := small(t)
	long := text(600_000)
	for _, tt := range []struct {
		parts [][]byte
		data  []byte
		step  int
	}{{parts, data, 1}, {[][]byte{encode(t, long[:300_000]), encode(t, long[300_000:])}, long, 997}} {
		var ends []int
		var stream []byte
		for _, p := range tt.parts {
			stream = append(stream, p...)
			ends = append(ends, len(stream))
		}
		for n := 0; n < len(stream); n += tt.step {
			got, err := drain(NewIndexer(bytes.NewReader(stream[:n]), nil))
			if slices.Contains(ends, n) {
				if err != nil {
					t.Errorf("stream cut between frames at %d: %v", n, err)
				}
			} else if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("stream of %d cut at %d: got error %v, want %v", len(stream), n, err, io.ErrUnexpectedEOF)
			}
			if !bytes.HasPrefix(tt.data, got) {
				t.Errorf("stream of %d cut at %d: wrong bytes", len(stream), n)
			}
		}
	}
}

// With a checksum in every frame a flipped bit is an error or changes
// nothing, also of the end of the output.
func TestFlippedBits(t *testing.T) {
	testenv.Slow(t)
	parts, data := small(t)
	stream := slices.Concat(parts...)
	for bit := range len(stream) * 8 {
		bad := slices.Clone(stream)
		bad[bit/8] ^= 1 << (bit % 8)
		got, err := drain(NewIndexer(bytes.NewReader(bad), nil))
		if err == nil && !bytes.Equal(got, data) {
			t.Fatalf("bit %d flipped: %d bytes, want %d, and no error", bit, len(got), len(data))
		}
		var place *codec.Error
		if err != nil && (!errors.As(err, &place) || place.In > int64(len(stream))) {
			t.Errorf("bit %d flipped: error %v has no place", bit, err)
		}
		if !bytes.HasPrefix(data, got) {
			t.Errorf("bit %d flipped: wrong bytes of a short frame were handed on", bit)
		}
	}
}

func FuzzDecode(f *testing.F) {
	parts, _ := small(f)
	f.Add(slices.Concat(parts...))
	f.Add(skippable(1, "x"))
	f.Add(encode(f, nil))
	f.Add(encode(f, text(3000), zstd.WithEncoderLevel(zstd.SpeedBestCompression)))
	f.Add(encode(f, text(3000), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false)))
	f.Add(streamed(f, append(text(2000), make([]byte, 400_000)...)))
	f.Add([]byte("\x28\xb5\x2f\xfd\x00\x88\x02\x00\x10x\x03\x00\x10y"))
	oracle, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecoderMaxMemory(MaxWindow))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want, wantErr := oracle.DecodeAll(b, nil)
		if errors.Is(wantErr, zstd.ErrDecoderSizeExceeded) || len(b) > 64<<10 {
			return
		}
		x := NewIndexer(bytes.NewReader(b), &Options{SpanOut: 1})
		got, err := drain(x)
		if len(b) == 0 {
			wantErr = io.ErrUnexpectedEOF // klauspost takes it, zstd does not
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("got %d bytes, error %v; klauspost %d bytes, error %v", len(got), err, len(want), wantErr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, klauspost %d others", len(got), len(want))
		}
		for _, cp := range x.Checkpoints() {
			d, err := Resume(bytes.NewReader(b[cp.In:]), cp)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := drain(d); err != nil || !bytes.Equal(got, want[cp.Out:]) {
				t.Fatalf("resumed at %+v: got %d bytes, error %v; want %d", cp, len(got), err, len(want)-int(cp.Out))
			}
		}
	})
}

// Both are read as a pipeline reads them: from a stream, in one goroutine.
func BenchmarkDecode(b *testing.B) {
	data := text(24 << 20)
	for _, in := range []struct {
		name   string
		stream []byte
	}{
		{"one", streamed(b, data)},
		{"frames=4K", frames(b, data, 4<<10)},
		{"frames=64K", frames(b, data, 64<<10)},
		{"frames=1M", frames(b, data, 1<<20)},
	} {
		for _, dec := range []struct {
			name string
			open func(io.Reader) (io.Reader, error)
		}{
			{"imgfs", func(r io.Reader) (io.Reader, error) { return &reader{d: NewIndexer(r, nil)}, nil }},
			{"klauspost", func(r io.Reader) (io.Reader, error) {
				return zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
			}},
		} {
			b.Run(in.name+"/"+dec.name, func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				p := make([]byte, outSize)
				for b.Loop() {
					r, err := dec.open(struct{ io.Reader }{bytes.NewReader(in.stream)})
					for err == nil {
						_, err = r.Read(p)
					}
					if err != io.EOF {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
