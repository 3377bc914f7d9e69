package fuse

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// readCommand makes this program one that reads the files whose names come on
// its standard input, and prints a reading. A process of its own can be ended
// while it waits for a mount.
//
//	read-files open|check|random|around N
//
// open reads all files from N threads, check takes their checksums as well.
// random reads N random pages of a mapping of each file, around does so too,
// and lets the kernel read what is around them.
const readCommand = "read-files"

// A reading is what was read, and how long that took without the start of the
// process.
type reading struct {
	took  time.Duration
	bytes int64
	sum   uint64 // of the files' checksums, or of the pages' first bytes
}

func runRead(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	r, err := readAs(args, stdin)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	fmt.Fprintln(stdout, r.took.Nanoseconds(), r.bytes, r.sum)
	return 0
}

func readAs(args []string, stdin io.Reader) (reading, error) {
	if len(args) != 2 {
		return reading{}, errors.New("a way of reading and a number are needed")
	}
	n, err := strconv.Atoi(args[1])
	text, readErr := io.ReadAll(stdin)
	if err := errors.Join(err, readErr); err != nil {
		return reading{}, err
	}
	names := strings.Split(string(text), "\x00")
	switch args[0] {
	case "open":
		return readFiles(names, n, false)
	case "check":
		return readFiles(names, n, true)
	case "random", "around":
		return readPages(names, n, args[0] == "random")
	}
	return reading{}, fmt.Errorf("no way of reading is called %q", args[0])
}

// readFiles reads files from several threads, each taking the next name.
func readFiles(names []string, threads int, check bool) (reading, error) {
	var next atomic.Int64
	results := make([]reading, threads)
	errs := make([]error, threads)
	var all sync.WaitGroup
	begun := time.Now()
	for i := range threads {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			buf := make([]byte, 1<<20)
			for errs[i] == nil {
				k := next.Add(1) - 1
				if k >= int64(len(names)) {
					return
				}
				var sum uint32
				sum, errs[i] = results[i].read(names[k], buf, check)
				results[i].sum += uint64(sum) * uint64(k+1) // so that no two can be swapped
			}
		})
	}
	all.Wait()
	total := reading{took: time.Since(begun)}
	for _, r := range results {
		total.bytes += r.bytes
		total.sum += r.sum
	}
	return total, errors.Join(errs...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// read reads one file, with no more system calls than it takes, and returns
// its checksum if that is asked for.
func (r *reading) read(name string, buf []byte, check bool) (sum uint32, err error) {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer syscall.Close(fd)
	for {
		n, err := syscall.Read(fd, buf)
		if err != nil {
			return 0, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if check {
			sum = crc32.Update(sum, castagnoli, buf[:n])
		}
		r.bytes += int64(n)
		if n == 0 {
			return sum, nil
		}
	}
}

const pageSize = 4096

// readPages reads n random pages of a mapping of each file. Told that they are
// random, the kernel reads them alone, else what is around them too.
func readPages(names []string, n int, random bool) (reading, error) {
	var r reading
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return r, err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return r, err
		}
		if st.Size() < pageSize {
			return r, fmt.Errorf("%s is smaller than a page", name)
		}
		m, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			return r, fmt.Errorf("mmap %s: %w", name, err)
		}
		if random {
			if err := syscall.Madvise(m, syscall.MADV_RANDOM); err != nil {
				return r, fmt.Errorf("madvise %s: %w", name, err)
			}
		}
		rnd := rand.New(rand.NewPCG(4, 20))
		begun := time.Now()
		for range n {
			off := rnd.Int64N(st.Size()/pageSize) * pageSize
			r.sum += uint64(m[off])
			r.bytes += pageSize
		}
		r.took += time.Since(begun)
		if err := syscall.Munmap(m); err != nil {
			return r, err
		}
	}
	return r, nil
}

// read has files below a directory read by a process of its own; wrap, if not
// empty, is the command that starts it.
func (b *bench) read(root string, names []string, how string, n int, wrap ...string) (reading, error) {
	args := slices.Concat(wrap, []string{b.self, "fuse", readCommand, how, strconv.Itoa(n)})
	cmd := b.command(b.ctx, args[0], args[1:]...)
	cmd.Dir = root
	cmd.Stdin = strings.NewReader(strings.Join(names, "\x00"))
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return reading{}, errors.Join(b.ctx.Err(), fmt.Errorf("reading below %s: %w", root, err))
	}
	return parseReading(string(out))
}

func parseReading(text string) (reading, error) {
	var took int64
	var r reading
	if _, err := fmt.Sscanln(text, &took, &r.bytes, &r.sum); err != nil {
		return r, fmt.Errorf("a reader printed %q: %w", text, err)
	}
	r.took = time.Duration(took)
	return r, nil
}
