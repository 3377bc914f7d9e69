package gzip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
)

// streamCount is how many streams are compared with a program that must be
// started for each: IMGFS_STREAMS, or few.
func streamCount() int {
	if n, err := strconv.Atoi(os.Getenv("IMGFS_STREAMS")); err == nil {
		return n
	}
	return 100
}

// TestAgreesWithProgram composes files of members with all kinds of headers,
// checksums and lengths, right ones and others, with garbage between and behind,
// and damages some. GNU gzip and this package accept the same files, and have the
// same bytes of them, but for members of gzip's predecessors, which no layer has.
func TestAgreesWithProgram(t *testing.T) {
	testenv.Slow(t)
	if out, err := exec.Command("gzip", "--version").Output(); err != nil || !bytes.HasPrefix(out, []byte("gzip 1.")) {
		t.Skipf("no GNU gzip: %v", err)
	}
	verdicts := map[bool]int{}
	for seed := range streamCount() {
		file := composed(t, rand.New(rand.NewPCG(uint64(seed), 1)))
		got, _, err := decodeAll(NewIndexer(bytes.NewReader(file), nil))
		verdicts[err == nil]++
		cmd := exec.Command("gzip", "-dc")
		cmd.Stdin = bytes.NewReader(file)
		want, theirErr := cmd.Output()
		var exit *exec.ExitError
		accepted := theirErr == nil || errors.As(theirErr, &exit) && exit.ExitCode() == 2 // a warning
		if errors.Is(err, errOld) {
			continue
		}
		if (err == nil) != accepted || err == nil && !bytes.Equal(got, want) {
			t.Errorf("seed %d: %d bytes, %v; GNU gzip %d bytes, %v %s\n%q", seed, len(got), err, len(want), theirErr, stderrOf(exit), file[:min(len(file), 300)])
		}
	}
	if verdicts[true] < 20 || verdicts[false] < 20 {
		t.Errorf("%d files are accepted and %d refused: too few to tell", verdicts[true], verdicts[false])
	}
}

func stderrOf(e *exec.ExitError) []byte {
	if e == nil {
		return nil
	}
	return bytes.TrimSpace(e.Stderr)
}

// composed is a file of up to four members, with something wrong in every
// second one.
func composed(t *testing.T, r *rand.Rand) []byte {
	var file []byte
	wrong := r.IntN(4) - 1
	for i := range 1 + r.IntN(4) {
		data := text(r.IntN(1<<r.IntN(12)+1), r.Uint64())
		body := zip(t, data)
		body = body[10 : len(body)-8]
		head := header(byte(r.IntN(32)))
		sum, size := crc32.ChecksumIEEE(data), uint32(len(data))
		if wrong == i {
			switch r.IntN(7) {
			case 0:
				sum ^= 1 << r.IntN(32)
			case 1:
				size += 1 << r.IntN(32)
			case 2:
				head[3] |= 1 << (5 + r.IntN(3))
			case 3:
				head[len(head)-1] ^= 1 << r.IntN(8)
			case 4:
				head[2] = byte(r.IntN(256))
			case 5:
				head[r.IntN(2)] = byte(r.IntN(256))
			case 6:
				body = body[:r.IntN(len(body))]
			}
		}
		file = append(append(file, head...), body...)
		file = binary.LittleEndian.AppendUint32(file, sum)
		file = binary.LittleEndian.AppendUint32(file, size)
	}
	switch r.IntN(12) {
	case 0:
		file = append(file, make([]byte, r.IntN(600))...)
	case 1:
		file = append(file, "garbage"[:1+r.IntN(7)]...)
	case 2:
		file = append(file, 0x1f, byte(r.IntN(256)), byte(r.IntN(256)))
	case 3:
		file = file[:r.IntN(len(file))]
	case 4, 5:
		file[r.IntN(len(file))] ^= 1 << r.IntN(8)
	case 6:
		at := r.IntN(len(file))
		file = append(file[:at:at], append([]byte{byte(r.IntN(256))}, file[at:]...)...)
	}
	return file
}
