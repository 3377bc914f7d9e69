package find

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// parsePerm reads the argument of -perm: MODE, just these bits; -MODE, all of them;
// /MODE, any of them, and each mode if there are none.
func parsePerm(s string) (func(mode uint32) bool, error) {
	kind, text := byte(0), s
	if s != "" && (s[0] == '-' || s[0] == '/') {
		kind, text = s[0], s[1:]
	}
	file, err := parseMode(text, false)
	if err != nil {
		return nil, err
	}
	dir, err := parseMode(text, true)
	if err != nil {
		return nil, err
	}
	return func(mode uint32) bool {
		want := file
		if mode&unix.S_IFMT == unix.S_IFDIR {
			want = dir
		}
		switch kind {
		case '-':
			return mode&want == want
		case '/':
			return want == 0 || mode&want != 0
		}
		return mode&0o7777 == want
	}, nil
}

// parseMode reads a mode as chmod does that changes one of no bits: in octal, or as in
// u=rwx,g+x.
func parseMode(s string, dir bool) (uint32, error) {
	wrong := fmt.Errorf("it is a mode such as 644 or u=rw,go=r, with - before it for all of its bits, or / for any of them")
	if s != "" && strings.Trim(s, "01234567") == "" {
		n, err := strconv.ParseUint(s, 8, 32)
		if err != nil || n > 0o7777 {
			return 0, wrong
		}
		return uint32(n), nil
	}
	mode := uint32(0)
	for clause := range strings.SplitSeq(s, ",") {
		rest := strings.TrimLeft(clause, "ugoa")
		who := whoseBits(clause[:len(clause)-len(rest)])
		if rest == "" {
			return 0, wrong
		}
		for rest != "" {
			op := rest[0]
			end := len(rest)
			if i := strings.IndexAny(rest[1:], "+-="); i >= 0 {
				end = i + 1
			}
			bits, ok := permBits(rest[1:end], mode, dir)
			if !strings.ContainsRune("+-=", rune(op)) || !ok {
				return 0, wrong
			}
			switch bits &= who; op {
			case '+':
				mode |= bits
			case '-':
				mode &^= bits
			case '=':
				mode = mode&^who | bits
			}
			rest = rest[end:]
		}
	}
	return mode, nil
}

// whoseBits returns the bits that the letters u, g, o and a stand for; none are all.
func whoseBits(who string) uint32 {
	bits := uint32(0)
	for _, c := range who {
		bits |= map[rune]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}[c]
	}
	if who == "" {
		return 0o7777
	}
	return bits
}

// permBits returns the bits of rights, in the places of all whom they can be given: of
// letters, of one of u, g and o what that has in mode, or of an octal number.
func permBits(s string, mode uint32, dir bool) (bits uint32, ok bool) {
	if shift := map[string]int{"u": 6, "g": 3, "o": 0}; len(s) == 1 && strings.Contains("ugo", s) {
		has := mode >> shift[s] & 7
		return has<<6 | has<<3 | has, true
	}
	for _, c := range s {
		switch c {
		case 'r':
			bits |= 0o444
		case 'w':
			bits |= 0o222
		case 'x':
			bits |= 0o111
		case 'X':
			if dir || mode&0o111 != 0 {
				bits |= 0o111
			}
		case 's':
			bits |= 0o6000
		case 't':
			bits |= 0o1000
		default:
			return 0, false
		}
	}
	return bits, true
}
