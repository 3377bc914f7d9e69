package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ReadCommand is the argument that turns this program into a reader: it reads the
// files whose names come on its standard input and prints a Reading as JSON. A
// process of its own can be ended while it waits for a mount.
//
//	read-files open|check|random|around N
//	read-files each PAUSE
//
// open reads all files from N threads, check takes their checksums as well.
// random reads N random pages of a mapping of each file, around does so too,
// and lets the kernel read around them. each reads one file after the other with
// a pause between.
const ReadCommand = "read-files"

// A Reading is the result of ReadCommand. The times do not include the start of
// the process.
type Reading struct {
	Took  time.Duration
	Bytes int64
	Sum   uint64          // of the files' checksums, or of the pages' first bytes
	Each  []time.Duration // of the files that were read with a pause between
}

// RunRead runs ReadCommand and returns the exit code.
func RunRead(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	r, err := readAs(args, stdin)
	if err == nil {
		err = json.NewEncoder(stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func readAs(args []string, stdin io.Reader) (Reading, error) {
	if len(args) != 2 {
		return Reading{}, errors.New("a way of reading and a number are needed")
	}
	text, err := io.ReadAll(stdin)
	if err != nil {
		return Reading{}, err
	}
	names := strings.Split(string(text), "\x00")
	if args[0] == "each" {
		pause, err := time.ParseDuration(args[1])
		if err != nil {
			return Reading{}, err
		}
		return readEach(names, pause)
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return Reading{}, err
	}
	switch args[0] {
	case "open":
		return readFiles(names, n, false)
	case "check":
		return readFiles(names, n, true)
	case "random", "around":
		return readPages(names, n, args[0] == "random")
	}
	return Reading{}, fmt.Errorf("no way of reading is called %q", args[0])
}

// readEach reads one file after the other with a pause between.
func readEach(names []string, pause time.Duration) (Reading, error) {
	var r Reading
	for _, name := range names {
		begun := time.Now()
		content, err := os.ReadFile(name)
		if err != nil {
			return r, err
		}
		took := time.Since(begun)
		r.Each, r.Took, r.Bytes = append(r.Each, took), r.Took+took, r.Bytes+int64(len(content))
		time.Sleep(pause)
	}
	return r, nil
}

// readFiles reads files from several threads, each taking the next name.
func readFiles(names []string, threads int, check bool) (Reading, error) {
	var next atomic.Int64
	results := make([]Reading, threads)
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
				results[i].Sum += uint64(sum) * uint64(k+1) // so that no two can be swapped
			}
		})
	}
	all.Wait()
	total := Reading{Took: time.Since(begun)}
	for _, r := range results {
		total.Bytes += r.Bytes
		total.Sum += r.Sum
	}
	return total, errors.Join(errs...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// read reads one file, with no more system calls than it takes, and returns
// its checksum if that is asked for.
func (r *Reading) read(name string, buf []byte, check bool) (sum uint32, err error) {
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
		r.Bytes += int64(n)
		if n == 0 {
			return sum, nil
		}
	}
}

const pageSize = 4096

// readPages reads n random pages of a mapping of each file. Told that they are
// random, the kernel reads them alone, else it reads around them too.
func readPages(names []string, n int, random bool) (Reading, error) {
	var r Reading
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
			if err := unix.Madvise(m, unix.MADV_RANDOM); err != nil {
				return r, fmt.Errorf("madvise %s: %w", name, err)
			}
		}
		rnd := rand.New(rand.NewPCG(4, 20))
		begun := time.Now()
		for range n {
			off := rnd.Int64N(st.Size()/pageSize) * pageSize
			r.Sum += uint64(m[off])
			r.Bytes += pageSize
		}
		r.Took += time.Since(begun)
		if err := syscall.Munmap(m); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Read reads files below a directory in a process of its own, in one of the ways
// of ReadCommand. If wrap is not empty it is the command that starts the process.
func (r *Runner) Read(root string, names []string, how, n string, wrap ...string) (Reading, error) {
	args := slices.Concat(wrap, []string{r.self, ReadCommand, how, n})
	cmd := r.Command(args[0], args[1:]...)
	cmd.Dir = root
	cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1") // a signal that the runtime sends to itself would interrupt reads
	cmd.Stdin = strings.NewReader(strings.Join(names, "\x00"))
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := r.Finish(cmd); err != nil {
		return Reading{}, fmt.Errorf("reading below %s: %w", root, err)
	}
	var got Reading
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		return Reading{}, fmt.Errorf("a reader printed %q: %w", &stdout, err)
	}
	return got, nil
}

// Walk asks for the attributes of all files of a tree, in which there must be some.
func Walk(dir string) error {
	n := 0
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil {
			n++
			_, err = d.Info()
		}
		return err
	})
	if err == nil && n < 2 {
		err = fmt.Errorf("%s: nothing is there", dir)
	}
	return err
}
