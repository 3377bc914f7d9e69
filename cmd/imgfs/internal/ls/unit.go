package ls

import (
	"fmt"
	"strconv"
	"strings"
)

// A unit is how a number of bytes is written: in units of size bytes, or with the
// unit of the powers of base that suits the number. It is rounded up.
type unit struct {
	base   uint64
	size   uint64
	suffix string // behind numbers of units of size
}

const prefixes = "KMGTPE"

// append writes a number of bytes.
func (u unit) append(b []byte, n uint64) []byte {
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

func (u unit) prefix(power int) byte {
	if u.base == 1000 && power == 1 {
		return 'k'
	}
	return prefixes[power-1]
}

// parseUnit reads the value of --block-size.
func parseUnit(s string) (unit, error) {
	switch s {
	case "human-readable":
		return unit{base: 1024}, nil
	case "si":
		return unit{base: 1000}, nil
	}
	wrong := fmt.Errorf("it is a size such as 512, K, 2M or GB, or human-readable or si")
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	name := s[len(digits):]
	u := unit{size: 1}
	if digits != "" {
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || n == 0 {
			return unit{}, wrong
		}
		u.size = n
	} else {
		u.suffix = name
	}
	if name == "" {
		if digits == "" {
			return unit{}, wrong
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
		return unit{}, wrong
	}
	if power == 0 {
		return unit{}, wrong
	}
	for range power {
		if u.size > 1<<63/base {
			return unit{}, wrong
		}
		u.size *= base
	}
	return u, nil
}
