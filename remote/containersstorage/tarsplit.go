package containersstorage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// maxLine bounds a line of a tar-split: the headers before one file, in base64.
	maxLine = 12 << 20
	// maxSplit bounds a tar-split's text. An entry takes about 1 KiB of it.
	maxSplit = 16 << 30
	// maxName bounds the name of a file, which is a path of Linux.
	maxName = 4096
)

// The types of lines (github.com/vbatts/tar-split/tar/storage, Type).
const (
	lineFile    = 1
	lineSegment = 2
)

// A splitLine is a line of a tar-split: a segment of the tar as it is, or a file whose
// content stands there.
type splitLine struct {
	Type int `json:"type"`
	// Name is that of a file, and NameRaw stands for it if it is not UTF-8.
	Name    string `json:"name"`
	NameRaw []byte `json:"name_raw"`
	Size    int64  `json:"size"`
	// Payload is the segment. Of a file it is a checksum, which is not looked at:
	// diff_id says all.
	Payload []byte `json:"payload"`
}

// errSplit: a tar-split is not what it should be.
var errSplit = errors.New("invalid tar-split")

// readSplit calls segment and file with what a tar-split has, in its order. What it
// hands out is valid until the function returns. A file has a positive size.
func readSplit(ctx context.Context, r io.Reader, segment func([]byte) error, file func(name []byte, size int64) error) error {
	text := bufio.NewReaderSize(io.LimitReader(r, maxSplit+1), 64<<10)
	var line []byte
	total := int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if line, err = appendLine(text, line[:0]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if total += int64(len(line)); total > maxSplit {
			return fmt.Errorf("%w: it has more than %d bytes", errSplit, int64(maxSplit))
		}
		var l splitLine
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("%w: %w", errSplit, err)
		}
		switch {
		case l.Type == lineSegment:
			err = segment(l.Payload)
		case l.Type != lineFile:
			err = fmt.Errorf("%w: a line of type %d", errSplit, l.Type)
		case l.Size < 0:
			err = fmt.Errorf("%w: a file of %d bytes", errSplit, l.Size)
		case l.Size > 0:
			name := l.NameRaw
			if len(name) == 0 {
				name = []byte(l.Name)
			}
			if len(name) > maxName {
				return fmt.Errorf("%w: a name of %d bytes", errSplit, len(name))
			}
			err = file(name, l.Size)
		}
		if err != nil {
			return err
		}
	}
}

// appendLine appends the next line, which is not empty.
func appendLine(r *bufio.Reader, line []byte) ([]byte, error) {
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return line, fmt.Errorf("%w: a line of more than %d bytes", errSplit, maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(line) > 0:
			return line, nil
		}
		return line, err
	}
}
