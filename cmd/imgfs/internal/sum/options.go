package sum

import (
	"errors"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/gnu"
	"github.com/spf13/pflag"
)

// Options are what the flags of sum say. NewOptions makes them.
type Options struct {
	// Recursive has all regular files below directories summed.
	Recursive bool
	// List is the file of sums that are checked; "" if none are, and "-" is standard
	// input.
	List string
	// JSON has the lines printed as a JSON array.
	JSON bool

	read, tag, binary, zero             bool
	status, strict, warn, ignoreMissing bool
}

// NewOptions declares the flags of sum, and returns what they will say.
func NewOptions(f *pflag.FlagSet) *Options {
	o := &Options{}
	d := gnu.NewFlags(f)
	set := func(b *bool, to bool) func() { return func() { *b = to } }
	d.On("r", "recursive", set(&o.Recursive, true))
	d.Help("recursive", "all files below directories; without PATH of the image")
	d.On("", "read", set(&o.read, true))
	d.Help("read", "read all files, also those whose sum an index has")
	d.Word("c", "check", func(s string) error {
		if o.List = s; s == "" {
			return errors.New("it is empty")
		}
		return nil
	})
	d.Help("check", "`FILE` compare with the sums in a local file (-: stdin)")
	d.On("", "ignore-missing", set(&o.ignoreMissing, true))
	d.Help("ignore-missing", "with -c: nothing of files that the image has not")
	d.On("", "status", set(&o.status, true))
	d.Help("status", "with -c: print nothing, the exit code says it")
	d.On("", "strict", set(&o.strict, true))
	d.Help("strict", "with -c: lines that are no sums are an error")
	d.On("w", "warn", set(&o.warn, true))
	d.Help("warn", "with -c: name each line that is no sum")
	d.On("", "tag", set(&o.tag, true))
	d.Help("tag", "lines as of BSD: SHA256 (PATH) = HASH")
	d.On("z", "zero", set(&o.zero, true))
	d.Help("zero", "lines end with a zero byte, and no name is escaped")
	d.On("b", "binary", set(&o.binary, true))
	d.On("t", "text", set(&o.binary, false))
	d.Word("a", "algorithm", func(s string) error {
		if s != "sha256" {
			return errors.New("there is sha256 alone")
		}
		return nil
	})
	f.BoolVar(&o.JSON, "json", false, "print JSON")
	return o
}

// Check returns an error if flags contradict each other.
func (o *Options) Check() error {
	of := map[bool]string{
		o.tag: "--tag", o.zero: "--zero", o.binary: "--binary", o.Recursive: "--recursive",
	}
	if o.List != "" {
		if flag, given := of[true]; given {
			return cli.Usagef("sum: %s has no meaning with --check", flag)
		}
		return nil
	}
	if o.status || o.strict || o.warn || o.ignoreMissing {
		return cli.Usagef("sum: --status, --strict, --warn and --ignore-missing have a meaning with --check alone")
	}
	return nil
}
