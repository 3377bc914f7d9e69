package hostile

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const block = 512

var zeros [1 << 20]byte

// A Tar writes the entries of a layer block by block: as fast as it can be, and
// whatever they claim. Errors of the writer below come out at Close.
type Tar struct{ w *bufio.Writer }

// A Header is what one header block says.
type Header struct {
	Type       byte // '0' if it is 0
	Name, Link string
	Size       int64
}

// bytes returns the header block.
func (h Header) bytes() []byte {
	b := make([]byte, block)
	copy(b, h.Name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	number(b[124:136], h.Size)
	number(b[136:148], 1_700_000_000)
	copy(b[148:], "        ")
	b[156] = max(h.Type, '0')
	copy(b[157:257], h.Link)
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// number writes n in octal digits or, where they have no room, in base 256.
func number(field []byte, n int64) {
	if text := fmt.Sprintf("%0*o", len(field)-1, n); len(text) < len(field) {
		copy(field, text+"\x00")
		return
	}
	for i := len(field) - 1; i >= 0; i-- {
		field[i] = byte(n)
		n >>= 8
	}
	field[0] |= 0x80
}

// Header writes a header block, and nothing of what it may announce.
func (t *Tar) Header(h Header) { t.w.Write(h.bytes()) }

// Body writes the content of an entry and fills its last block.
func (t *Tar) Body(content string) {
	t.w.WriteString(content)
	t.w.Write(zeros[:-len(content)&(block-1)])
}

// Zeros writes n zeros.
func (t *Tar) Zeros(n int64) { writeZeros(t.w, n) }

func writeZeros(w io.Writer, n int64) {
	for ; n > 0; n -= int64(len(zeros)) {
		w.Write(zeros[:min(n, int64(len(zeros)))])
	}
}

// File writes a regular file.
func (t *Tar) File(name, content string) { t.Entry('0', name, "", content) }

// Entry writes an entry; what has no room in a header goes before it, as GNU
// tar has it.
func (t *Tar) Entry(kind byte, name, link, content string) {
	t.long('L', name)
	t.long('K', link)
	t.Header(Header{Type: kind, Name: cut(name), Link: cut(link), Size: int64(len(content))})
	t.Body(content)
}

func (t *Tar) long(kind byte, text string) {
	if len(text) > 100 {
		t.Header(Header{Type: kind, Name: "././@LongLink", Size: int64(len(text)) + 1})
		t.Body(text + "\x00")
	}
}

func cut(text string) string { return text[:min(len(text), 100)] }

// Pax writes an extended header for the next entry. records are keys and
// values by turns.
func (t *Tar) Pax(records ...string) {
	var body strings.Builder
	for i := 0; i < len(records); i += 2 {
		body.WriteString(paxRecord(records[i], records[i+1]))
	}
	t.Header(Header{Type: 'x', Name: "pax", Size: int64(body.Len())})
	t.Body(body.String())
}

// paxRecord writes "length key=value\n", where the length counts itself.
func paxRecord(key, value string) string {
	rest := len(key) + len(value) + len(" =\n")
	n := rest + len(strconv.Itoa(rest))
	if len(strconv.Itoa(n))+rest > n {
		n++
	}
	return strconv.Itoa(n) + " " + key + "=" + value + "\n"
}

// end writes the file that each attack that opens has, and the end of the tar.
func (t *Tar) end() {
	t.File("small", smallContent)
	t.Zeros(2 * block)
}

// smallContent is what the file "small" has in it.
const smallContent = "hello"
