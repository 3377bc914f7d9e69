package du

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/gnu"
	"github.com/spf13/pflag"
)

// A following says which symlinks are followed.
type following int

const (
	followNone following = iota
	followNamed
	followAll
)

// Options are what the flags of du say. NewOptions makes them.
type Options struct {
	all, summarize, total bool
	depth                 int // -1: no bound
	apparent, inodes      bool
	separate, countLinks  bool
	follow                following
	unit                  gnu.Unit
	threshold             threshold
	exclude               []string
	zero                  bool
	// JSON has the lines printed as a JSON array.
	JSON bool
}

// A threshold is a size below which, or above which, no line is printed.
type threshold struct {
	size uint64
	most bool // it is the largest size that is printed, and not the smallest
}

// NewOptions declares the flags of du, and returns what they will say.
func NewOptions(f *pflag.FlagSet) *Options {
	o := &Options{depth: -1, unit: defaultUnit()}
	d := gnu.NewFlags(f)
	d.On("a", "all", func() { o.all = true })
	d.Help("all", "files, too, and not directories alone")
	d.On("s", "summarize", func() { o.summarize = true })
	d.Help("summarize", "one line for each PATH")
	d.Word("d", "max-depth", o.setDepth)
	d.Help("max-depth", "`N` not what is more than N directories below a PATH")
	d.On("c", "total", func() { o.total = true })
	d.Help("total", "a last line with the sum of all PATHs")
	d.On("h", "human-readable", func() { o.unit = gnu.Powers })
	d.Help("human-readable", "sizes as 1.5M, in powers of 1024 (--si: of 1000)")
	d.On("b", "bytes", func() { o.apparent, o.unit = true, gnu.Bytes })
	d.Help("bytes", "bytes of contents (default: 1024 of a disk; -k -m -B)")
	d.On("S", "separate-dirs", func() { o.separate = true })
	d.Word("t", "threshold", o.setThreshold)
	d.Help("threshold", "`SIZE` nothing smaller; with a minus nothing larger")
	d.Word("", "exclude", func(s string) error { o.exclude = append(o.exclude, s); return nil })
	d.Help("exclude", "`PATTERN` nothing whose name, or path, matches")
	d.On("", "inodes", func() { o.inodes = true })
	d.Help("inodes", "numbers of files, and not their sizes")
	d.On("0", "null", func() { o.zero = true })
	o.others(d)
	f.BoolVar(&o.JSON, "json", false, "print JSON, sizes in bytes")
	return o
}

// others declares the flags that help does not list.
func (o *Options) others(d gnu.Flags) {
	d.On("", "apparent-size", func() { o.apparent = true })
	d.On("k", "", func() { o.unit = gnu.KiB })
	d.On("m", "", func() { o.unit = gnu.MiB })
	d.On("", "si", func() { o.unit = gnu.SI })
	d.Word("B", "block-size", func(s string) (err error) {
		o.unit, err = gnu.ParseUnit(s)
		return err
	})
	d.On("l", "count-links", func() { o.countLinks = true })
	follow := func(how following) func() { return func() { o.follow = how } }
	d.On("L", "dereference", follow(followAll))
	d.On("D", "dereference-args", follow(followNamed))
	d.On("H", "", follow(followNamed))
	d.On("P", "no-dereference", follow(followNone))
	d.On("x", "one-file-system", func() {}) // an image is one
}

// Check returns an error if flags contradict each other.
func (o *Options) Check() error {
	switch {
	case o.summarize && o.all:
		return cli.Usagef("du: -s prints one line for each path, and -a one for each file: they exclude each other")
	case o.summarize && o.depth > 0:
		return cli.Usagef("du: -s is -d 0, which excludes -d %d", o.depth)
	}
	if o.summarize {
		o.depth = 0
	}
	if o.inodes && o.unit != gnu.Powers && o.unit != gnu.SI {
		o.unit = gnu.Bytes
	}
	return nil
}

// defaultUnit returns the unit that the environment wants, or 1024 bytes.
func defaultUnit() gnu.Unit {
	text := cmp.Or(os.Getenv("DU_BLOCK_SIZE"), os.Getenv("BLOCK_SIZE"), os.Getenv("BLOCKSIZE"))
	if _, set := os.LookupEnv("POSIXLY_CORRECT"); text == "" && set {
		text = "512"
	}
	if u, err := gnu.ParseUnit(strings.TrimPrefix(text, "'")); err == nil {
		return u
	}
	return gnu.KiB
}

func (o *Options) setDepth(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return errors.New("it is a number of directories")
	}
	o.depth = int(n)
	return nil
}

func (o *Options) setThreshold(s string) error {
	size, most := strings.CutPrefix(s, "-")
	n, err := gnu.ParseSize(strings.TrimPrefix(size, "+"))
	if err != nil || most && n == 0 {
		return fmt.Errorf("it is a size such as 512, 1M or -2GB")
	}
	o.threshold = threshold{n, most}
	return nil
}

// shows reports whether a line with a size, or a number of inodes, is printed.
func (t threshold) shows(n uint64) bool {
	if t.most {
		return n <= t.size
	}
	return n >= t.size
}

// add returns a sum; sizes are what strangers claim, and can be too much for it.
func add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
