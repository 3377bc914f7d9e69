package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/ls"
	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// statValues are what the conversions of a format stand for.
type statValues struct {
	name     string
	node     fs.Node
	owners   *ls.Owners
	terminal bool
	short    bool // %N quotes only what has to be
	escapes  bool // the format has escapes
}

// print writes a format.
func (v *statValues) print(w io.Writer, format string) error {
	var b strings.Builder
	for format != "" {
		switch {
		case format[0] == '\\' && v.escapes:
			c, length := unescaped(format)
			b.WriteByte(c)
			format = format[length:]
		case format[0] == '%' && len(format) > 1:
			flags, rest := directive(format)
			if rest == "" { // checkFormat has refused it
				return nil
			}
			b.WriteString(v.converted(flags, rest[0]))
			format = rest[1:]
		default:
			b.WriteByte(format[0])
			format = format[1:]
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// directive returns what stands between the % that a format begins with and the letter,
// and the rest of the format from the letter on.
func directive(format string) (flags, rest string) {
	rest = strings.TrimLeft(format[1:], "-+ #0'.123456789")
	return format[1 : len(format)-len(rest)], rest
}

// checkFormat refuses what stat(1) refuses: a directive that has no letter.
func checkFormat(format string) error {
	for {
		at := strings.IndexByte(format, '%')
		if at < 0 || at == len(format)-1 {
			return nil
		}
		flags, rest := directive(format[at:])
		if flags != "" && (rest == "" || rest[0] == '%') {
			return cli.Usagef("stat: the format has no letter after %%%s", printable.Word(flags))
		}
		format = rest[1:]
	}
}

// converted returns one conversion: what stands between % and the letter, as printf has
// it, and the letter.
func (v *statValues) converted(flags string, letter byte) string {
	if letter == '%' {
		return "%"
	}
	text, number, base := v.value(letter)
	width, precision, _ := strings.Cut(strings.TrimLeft(flags, "-+ #0'"), ".")
	marks := flags[:len(flags)-len(strings.TrimLeft(flags, "-+ #0'"))]
	wide, _ := strconv.Atoi(width)
	wide = min(wide, 1<<12)
	if base != 0 {
		text = strconv.FormatInt(number, base)
		if strings.Contains(marks, "#") && number != 0 {
			text = map[int]string{8: "0", 16: "0x"}[base] + text
		}
		if strings.Contains(marks, "0") && !strings.Contains(marks, "-") {
			text = strings.Repeat("0", max(0, wide-len(text))) + text
		}
	} else if n, err := strconv.Atoi(precision); err == nil && letter != 'Y' && letter != 'X' && letter != 'Z' {
		text = text[:min(n, len(text))]
	} else if err == nil && n > 0 {
		text += fmt.Sprintf(".%09d", v.node.Attr().ModNsec)[:min(n, 9)+1]
	}
	if strings.Contains(marks, "-") {
		return fmt.Sprintf("%-*s", wide, text)
	}
	return fmt.Sprintf("%*s", wide, text)
}

// value returns what a letter stands for: a text, or a number that is written in a base.
func (v *statValues) value(letter byte) (text string, number int64, base int) {
	a := v.node.Attr()
	switch letter {
	case 'n':
		return entry.Name(v.name, v.terminal), 0, 0
	case 'N':
		text = ls.Quote(v.name, !v.short)
		if a.Mode&unix.S_IFMT == unix.S_IFLNK {
			text += " -> " + ls.Quote(v.node.Target(), !v.short)
		}
		return text, 0, 0
	case 's':
		return "", a.Size, 10
	case 'b':
		return "", int64(a.Blocks()), 10
	case 'B':
		return "", 512, 10
	case 'o':
		return "", 4096, 10
	case 'a':
		return "", int64(a.Mode & 0o7777), 8
	case 'A':
		return ls.ModeString(a.Mode), 0, 0
	case 'f':
		return "", int64(a.Mode), 16
	case 'F':
		return typeName(a), 0, 0
	case 'u':
		return "", int64(a.UID), 10
	case 'g':
		return "", int64(a.GID), 10
	case 'U':
		name, _ := v.owners.User(a.UID)
		return orUnknown(name), 0, 0
	case 'G':
		name, _ := v.owners.Group(a.GID)
		return orUnknown(name), 0, 0
	case 'h':
		return "", int64(a.Nlink), 10
	case 'i':
		return "", int64(v.node.Ino()), 10
	case 't':
		return "", int64(a.Major), 16
	case 'T':
		return "", int64(a.Minor), 16
	case 'd':
		if v.short { // of defaultStat
			if a.Mode&unix.S_IFMT == unix.S_IFCHR || a.Mode&unix.S_IFMT == unix.S_IFBLK {
				return fmt.Sprintf("     Device type: %d,%d", a.Major, a.Minor), 0, 0
			}
			return "", 0, 0
		}
	case 'x', 'y', 'z':
		if !ls.HasDate(a.ModSec) {
			return fmt.Sprintf("%d.%09d", a.ModSec, a.ModNsec), 0, 0
		}
		return time.Unix(a.ModSec, int64(a.ModNsec)).Format("2006-01-02 15:04:05.000000000 -0700"), 0, 0
	case 'X', 'Y', 'Z':
		return strconv.FormatInt(a.ModSec, 10), 0, 0
	case 'w':
		return "-", 0, 0
	case 'W':
		return "", 0, 10
	}
	return "?", 0, 0
}

func orUnknown(name string) string {
	if name == "" {
		return "UNKNOWN"
	}
	return name
}

// typeName returns the words of stat(1) for a type.
func typeName(a fs.Attr) string {
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if a.Size == 0 {
			return "regular empty file"
		}
		return "regular file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFCHR:
		return "character special file"
	case unix.S_IFBLK:
		return "block special file"
	}
	return "socket"
}

// unescaped returns the byte that a format begins with as an escape, and how long that is.
func unescaped(format string) (c byte, length int) {
	if len(format) == 1 {
		return '\\', 1
	}
	digits := func(from, most, base int) (byte, int) {
		for n := min(from+most, len(format)); n > from; n-- {
			if c, err := strconv.ParseUint(format[from:n], base, 16); err == nil {
				return byte(c), n
			}
		}
		return format[1], 2
	}
	switch {
	case format[1] == 'x':
		return digits(2, 2, 16)
	case format[1] >= '0' && format[1] <= '7':
		return digits(1, 3, 8)
	}
	letters := map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 'a': 7, 'b': 8, 'f': 12, 'v': 11, 'e': 27}
	if c, ok := letters[format[1]]; ok {
		return c, 2
	}
	return format[1], 2
}
