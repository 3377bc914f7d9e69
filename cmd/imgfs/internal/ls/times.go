package ls

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A timeStyle is two formats for strftime: for times of long ago or of the future, and
// for those of the last six months.
type timeStyle struct{ old, recent string }

var timeStyles = map[string]timeStyle{
	"full-iso": {"%Y-%m-%d %H:%M:%S.%N %z", "%Y-%m-%d %H:%M:%S.%N %z"},
	"long-iso": {"%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M"},
	"iso":      {"%Y-%m-%d ", "%m-%d %H:%M"},
	"locale":   {"%b %e  %Y", "%b %e %H:%M"},
}

// parseTimeStyle reads the value of --time-style.
func parseTimeStyle(s string) (timeStyle, error) {
	if f, ok := strings.CutPrefix(s, "+"); ok {
		old, recent, two := strings.Cut(f, "\n")
		if !two {
			recent = old
		}
		if strings.Contains(recent, "\n") {
			return timeStyle{}, fmt.Errorf("it has more than two lines")
		}
		return timeStyle{old, recent}, nil
	}
	t, ok := timeStyles[strings.TrimPrefix(s, "posix-")]
	if !ok {
		return timeStyle{}, fmt.Errorf("it is one of full-iso, long-iso, iso, locale, or +FORMAT as date(1) has it")
	}
	return t, nil
}

// style returns the time style of the flags, or else of the variable TIME_STYLE.
func (o *Options) style() timeStyle {
	for _, s := range []string{o.timeStyle, os.Getenv("TIME_STYLE")} {
		if t, err := parseTimeStyle(s); err == nil {
			return t
		}
	}
	return timeStyles["locale"]
}

// halfYear is half of the mean Gregorian year.
const halfYear = 31556952 / 2 * time.Second

// append writes a time, as seen from now.
func (s timeStyle) append(b []byte, t, now time.Time) []byte {
	if !HasDate(t.Unix()) {
		return padLeft(b, strconv.FormatInt(t.Unix(), 10), len(AppendTime(nil, s.recent, time.Unix(0, 0))))
	}
	format := s.old
	if t.After(now.Add(-halfYear)) && t.Before(now) {
		format = s.recent
	}
	return AppendTime(b, format, t)
}

// conversions are those of strftime that are a layout of package time, or several of
// strftime's.
var (
	layouts = map[byte]string{'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'h': "Jan", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'j': "002",
		'm': "01", 'M': "04", 'p': "PM", 'P': "pm", 'S': "05", 'y': "06", 'z': "-0700", 'Z': "MST"}
	combined = map[byte]string{'c': "%a %b %e %H:%M:%S %Y", 'D': "%m/%d/%y", 'F': "%Y-%m-%d", 'r': "%I:%M:%S %p", 'R': "%H:%M", 'T': "%H:%M:%S",
		'x': "%m/%d/%y", 'X': "%H:%M:%S"}
)

// HasDate reports whether a time, in seconds since 1970, is in a year that struct tm of C
// has, which is an int32 and counts from 1900. GNU's programs print the number of others.
func HasDate(seconds int64) bool {
	const far = 1 << 57 // package time has a calendar up to here, and somewhat farther
	if seconds < -far || seconds > far {
		return false
	}
	year := int64(time.Unix(seconds, 0).Year()) - 1900
	return year == int64(int32(year))
}

// AppendTime appends what strftime writes in the locale C to b. What it does not know stays
// as it is. Of a time without a date it appends the number of seconds, whatever the format.
func AppendTime(b []byte, format string, t time.Time) []byte {
	if !HasDate(t.Unix()) {
		return strconv.AppendInt(b, t.Unix(), 10)
	}
	for i := 0; i < len(format); i++ {
		c := format[i]
		if c != '%' || i+1 == len(format) {
			b = append(b, c)
			continue
		}
		i++
		flag := byte(0)
		if c = format[i]; (c == '-' || c == '_' || c == '0' || c == '^') && i+1 < len(format) {
			flag, i = c, i+1
			c = format[i]
		}
		if flag == 0 {
			b = appendConversion(b, c, t)
		} else {
			b = append(b, padded(string(appendConversion(nil, c, t)), flag)...)
		}
	}
	return b
}

// appendConversion writes one conversion of strftime.
func appendConversion(b []byte, c byte, t time.Time) []byte {
	switch c {
	case 'N':
		return fmt.Appendf(b, "%09d", t.Nanosecond())
	case 'Y':
		return strconv.AppendInt(b, int64(t.Year()), 10)
	case 'C':
		return fmt.Appendf(b, "%02d", t.Year()/100)
	case 'G':
		year, _ := t.ISOWeek()
		return strconv.AppendInt(b, int64(year), 10)
	case 'g':
		year, _ := t.ISOWeek()
		return fmt.Appendf(b, "%02d", (year%100+100)%100)
	case 'U': // weeks that begin with a Sunday, and those before the first one
		return fmt.Appendf(b, "%02d", (t.YearDay()+6-int(t.Weekday()))/7)
	case 'W': // with a Monday
		return fmt.Appendf(b, "%02d", (t.YearDay()+6-int(t.Weekday()+6)%7)/7)
	case 'V':
		_, week := t.ISOWeek()
		return fmt.Appendf(b, "%02d", week)
	case 'k':
		return fmt.Appendf(b, "%2d", t.Hour())
	case 'l':
		return fmt.Appendf(b, "%2d", (t.Hour()+11)%12+1)
	case 's':
		return strconv.AppendInt(b, t.Unix(), 10)
	case 'u':
		return strconv.AppendInt(b, int64((t.Weekday()+6)%7+1), 10)
	case 'w':
		return strconv.AppendInt(b, int64(t.Weekday()), 10)
	case 'n', 't':
		return append(b, map[byte]byte{'n': '\n', 't': '\t'}[c])
	case '%':
		return append(b, '%')
	}
	if layout, ok := layouts[c]; ok {
		return t.AppendFormat(b, layout)
	}
	if several, ok := combined[c]; ok {
		return AppendTime(b, several, t)
	}
	return append(b, '%', c)
}

// padded returns what a conversion has written as a flag of it wants it: not padded,
// padded with spaces or zeros, or in upper case.
func padded(text string, flag byte) string {
	if text == "" {
		return ""
	}
	last := len(text) - 1
	body := strings.TrimLeft(text[:last], " 0") + text[last:]
	switch flag {
	case '-':
		return body
	case '_':
		return strings.Repeat(" ", len(text)-len(body)) + body
	case '0':
		return strings.Repeat("0", len(text)-len(body)) + body
	case '^':
		return strings.ToUpper(text)
	}
	return text
}
