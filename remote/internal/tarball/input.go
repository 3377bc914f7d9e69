package tarball

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
)

// An input is what an archive is read from.
type input struct {
	reader io.Reader
	// regular says that file is a regular one that is read from its start, so that
	// an archive may be read where it is.
	regular bool
	file    *os.File // nil if it is no file
	size    int64    // 0 if it is not known
	close   func() error
	stop    func() // ends what watches the context
}

// openInput opens what Open reads.
func openInput(ctx context.Context, name string, opts *remote.ArchiveOptions) (*input, error) {
	if opts.From == nil {
		return openNamed(ctx, name)
	}
	in := &input{reader: opts.From, close: opts.From.Close, stop: func() {}}
	file, ok := opts.From.(*os.File)
	if !ok {
		return in, nil
	}
	err := in.take(file)
	if err == nil && !in.regular {
		in.reader, in.stop, err = newWaiter(ctx, file)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return in, nil
}

// openNamed opens a file by its name.
func openNamed(ctx context.Context, name string) (*input, error) {
	file, info, err := openFile(name)
	if err != nil {
		return nil, err
	}
	// Reading a pipe has no other end.
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	in := &input{reader: file, file: file, regular: info.Mode().IsRegular(), size: info.Size(), close: file.Close, stop: func() { stop() }}
	if info.Mode()&fs.ModeNamedPipe != 0 {
		if err := awaitWriter(file); err != nil {
			stop()
			file.Close()
			return nil, err
		}
	}
	return in, nil
}

// openFile opens a file without waiting for the other end of a pipe.
func openFile(name string) (*os.File, fs.FileInfo, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := statFile(file)
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// statFile is file.Stat of what is no directory.
func statFile(file *os.File) (fs.FileInfo, error) {
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%w: it is a directory", ErrNotArchive)
	}
	return info, err
}

// take makes a file the input that somebody else has opened. A regular one of which
// something has been read is taken for a stream: what was read is not part of it.
func (in *input) take(file *os.File) error {
	info, err := statFile(file)
	if err != nil {
		return err
	}
	in.file = file
	if !info.Mode().IsRegular() {
		return nil
	}
	in.size = info.Size()
	if at, err := file.Seek(0, io.SeekCurrent); err != nil || at > 0 {
		in.size = max(in.size-at, 0)
		return err
	}
	in.regular = true
	// Its offset is also that of other processes.
	in.reader = io.NewSectionReader(file, 0, in.size)
	return nil
}

// A waiter reads a file that somebody else has opened, whose reads may not be told to
// end: its descriptor blocks, and must stay so, as other processes have it too. It waits
// for bytes with poll(2), and for the end of its context.
type waiter struct {
	ctx  context.Context
	file *os.File
	end  *os.File // its other end is closed when ctx ends
}

// newWaiter returns one, and what is to be called when nothing more is read.
func newWaiter(ctx context.Context, file *os.File) (io.Reader, func(), error) {
	end, ended, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { ended.Close() })
	return &waiter{ctx, file, end}, func() {
		stop()
		ended.Close()
		end.Close()
	}, nil
}

// Read implements io.Reader.
func (w *waiter) Read(p []byte) (int, error) {
	if err := w.wait(); err != nil {
		return 0, err
	}
	return w.file.Read(p)
}

// wait waits until a read finds something, or the end.
func (w *waiter) wait() error {
	fds := []unix.PollFd{{Events: unix.POLLIN}, {Events: unix.POLLIN}}
	for i, f := range []*os.File{w.file, w.end} {
		conn, err := f.SyscallConn()
		if err == nil {
			err = conn.Control(func(fd uintptr) { fds[i].Fd = int32(fd) })
		}
		if err != nil {
			return err
		}
	}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case w.ctx.Err() != nil:
			return w.ctx.Err()
		case errors.Is(err, unix.EINTR):
		default:
			return err
		}
	}
}

// awaitWriter waits until somebody has opened the other end of a pipe: before,
// it would seem to be at its end.
func awaitWriter(pipe *os.File) error {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}
