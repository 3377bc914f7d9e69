package remote

import "io"

// A TempFile is a temporary file without a name: closing it removes it.
type TempFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// ArchiveOptions say what opening an archive may take. Nil and zero values
// mean the defaults.
type ArchiveOptions struct {
	// MaxSize bounds the bytes that a compressed archive, or one that is no
	// regular file, may have when it is unpacked, and those of a compressed
	// layer in it. More is ErrTooBig. Default: 64 GiB. Negative: no bound.
	MaxSize int64
	// NewTemp makes the file that such an archive is unpacked to. Default: one
	// in $TMPDIR, or in /var/tmp if that is not set.
	NewTemp func() (TempFile, error)
	// From, if not nil, is read in place of the file of that name, which is for
	// messages alone then: standard input, or what a server sends. Opening takes it
	// over: it is closed when it has been read, or with the archive. An *os.File that
	// is a regular file at its start is read where it is; anything else is unpacked.
	From io.ReadCloser
	// Progress, if not nil, is told how much of the file has been read by now while
	// it is unpacked, and how much it has; 0 if that is not known.
	Progress func(read, size int64)
	// Platform chooses among several images that have what is asked for, if they
	// are not chosen by an image index. It is written as for Open.
	Platform string
}

// Limit returns MaxSize or its default, and 0 if there is no bound.
func (o *ArchiveOptions) Limit() int64 {
	if o.MaxSize == 0 {
		return 64 << 30
	}
	return max(o.MaxSize, 0)
}
