package hosts

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxConfig is how many bytes a configuration file has less than.
const maxConfig = 16 << 20

// pipeTime is how long a pipe may take to say what there is to say. It is a
// variable for tests.
var pipeTime = 10 * time.Second

var errSilent = errors.New("it is a pipe, and nobody has written to it")

// readConfig reads a configuration file. A pipe, such as a shell makes of
// <(command), is read too, but nobody waits for ever for who is to write to it.
func readConfig(path string) ([]byte, error) {
	// Opening a pipe would wait for that, and not end with a context.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var r io.Reader = f
	if st.Mode()&fs.ModeNamedPipe != 0 {
		end := time.Now().Add(pipeTime)
		if err := f.SetReadDeadline(end); err != nil {
			return nil, err
		}
		r = &pipe{File: f, end: end}
	}
	data, err := io.ReadAll(io.LimitReader(r, maxConfig))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%w for %s", errSilent, pipeTime)}
	case err == nil && len(data) == maxConfig:
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("%d bytes or more", maxConfig)}
	}
	return data, err
}

// ReadPipe reads a file of credentials that can be read once alone, such as a shell makes of
// <(command), for who will need it again. pipe is false if it is no such file, and then
// nothing was read.
func ReadPipe(path string) (data []byte, pipe bool, err error) {
	if st, err := os.Stat(path); err != nil || st.Mode()&fs.ModeNamedPipe == 0 {
		return nil, false, nil
	}
	data, err = readConfig(path)
	return data, true, err
}

// A pipe is one that is read until everybody who writes to it is done.
type pipe struct {
	*os.File
	end  time.Time
	came bool // something has
}

// Read waits for the first who writes: before that a pipe seems to be at its end.
func (p *pipe) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		p.came = p.came || n > 0
		if p.came || err != io.EOF {
			return n, err
		}
		if !time.Now().Before(p.end) {
			return 0, os.ErrDeadlineExceeded
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// pipes keeps what pipes have said: they say it once. It is safe for concurrent
// use. The zero pipes, and nil, keep nothing yet.
type pipes struct {
	mu   sync.Mutex
	said map[string][]byte // by path
}

// read is readConfig for a file that may be a pipe that was read before.
func (p *pipes) read(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if p == nil || err != nil || st.Mode()&fs.ModeNamedPipe == 0 {
		return readConfig(path)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if data, ok := p.said[path]; ok {
		return data, nil
	}
	data, err := readConfig(path)
	if err == nil {
		if p.said == nil {
			p.said = make(map[string][]byte)
		}
		p.said[path] = data
	}
	return data, err
}
