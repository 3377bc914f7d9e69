package gnu

import (
	"fmt"
	"strconv"
	"strings"
)

// A Unit is how a number of bytes is written: in units of so many bytes, or with
// the unit that suits the number. It is rounded up.
type Unit struct {
	base   uint64
	size   uint64
	suffix string // behind numbers of units of size
}

// The units that flags of a letter choose.
var (
	Bytes  = Unit{size: 1}
	KiB    = Unit{size: 1 << 10}
	MiB    = Unit{size: 1 << 20}
	Powers = Unit{base: 1024} // -h: 1.5M
	SI     = Unit{base: 1000} // --si
)

const prefixes = "KMGTPE"

// Append writes a number of bytes.
func (u Unit) Append(b []byte, n uint64) []byte {
	if u.base == 0 {
		q := n / u.size
		if n%u.size > 0 {
			q++
		}
		return append(strconv.AppendUint(b, q, 10), u.suffix...)
	}
	unit, power := uint64(1), 0
	for power < len(prefixes) && n/unit >= u.base {
		unit, power = unit*u.base, power+1
	}
	if power == 0 {
		return strconv.AppendUint(b, n, 10)
	}
	whole, rest := n/unit, n%unit
	// rest is less than 2^60, so ten of it are a number still.
	if tenths := (rest*10 + unit - 1) / unit; whole*10+tenths < 100 {
		whole, tenths = whole+tenths/10, tenths%10
		return append(strconv.AppendUint(b, whole, 10), '.', byte('0'+tenths), u.prefix(power))
	}
	if rest > 0 {
		whole++
	}
	if whole == u.base && power < len(prefixes) {
		return append(b, '1', '.', '0', u.prefix(power+1))
	}
	return append(strconv.AppendUint(b, whole, 10), u.prefix(power))
}

func (u Unit) prefix(power int) byte {
	if u.base == 1000 && power == 1 {
		return 'k'
	}
	return prefixes[power-1]
}

// ParseUnit reads the value of --block-size.
func ParseUnit(s string) (Unit, error) {
	switch s {
	case "human-readable":
		return Powers, nil
	case "si":
		return SI, nil
	}
	wrong := fmt.Errorf("it is a size such as 512, K, 2M or GB, or human-readable or si")
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	name := s[len(digits):]
	u := Unit{size: 1}
	if digits != "" {
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || n == 0 {
			return Unit{}, wrong
		}
		u.size = n
	}
	if name == "" {
		if digits == "" {
			return Unit{}, wrong
		}
		return u, nil
	}
	power := strings.Index(prefixes, strings.ToUpper(name[:1])) + 1
	base := uint64(1024)
	switch name[1:] {
	case "", "iB":
	case "B":
		base = 1000
	default:
		return Unit{}, wrong
	}
	if power == 0 {
		return Unit{}, wrong
	}
	if digits == "" {
		u.suffix = string(Unit{base: base}.prefix(power)) + name[1:]
	}
	for range power {
		if u.size > 1<<63/base {
			return Unit{}, wrong
		}
		u.size *= base
	}
	return u, nil
}

// ParseSize reads a size as of --threshold: a number, and a unit if it is not of bytes.
func ParseSize(s string) (uint64, error) {
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("it is a size such as 512, 1M or 2GB")
	}
	if n == 0 {
		s = "1" + s[len(digits):]
	}
	u, err := ParseUnit(s)
	if err != nil {
		return 0, err
	}
	return min(n, 1) * u.size, nil
}
