package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Variable names another file, or none if it is set and empty.
const Variable = "IMGFS_CONFIG"

// maxSize is how many bytes a file may have.
const maxSize = 1 << 20

// A File is what was read. The zero value is that of no file.
type File struct {
	Path string // "": there is none
	// Settings are in the order of the file.
	Settings []Setting
}

// A Setting is a key with its value.
type Setting struct {
	// Command has the words of the table, "cache ls" for [cache.ls]; "" is none.
	Command string
	// Key is "" of a table itself.
	Key string
	// Values are the texts in a list, or the one value.
	Values []string
	// Line is where it is in the file, from 1; 0 if that is not known.
	Line int
}

// An Error is a mistake in a file.
type Error struct {
	Path string
	Line int // 0: not known
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return Place(e.Path, e.Line) + ": " + e.Err.Error() }

// Unwrap returns the mistake.
func (e *Error) Unwrap() error { return e.Err }

// ErrUnsafe says that others than the user and root may have written a file.
var ErrUnsafe = errors.New("it is not read")

// Place writes a line of a file as messages have it.
func Place(path string, line int) string {
	if line == 0 {
		return path
	}
	return path + ":" + strconv.Itoa(line)
}

// Path returns where the user's file is: what the variable says, or
// $XDG_CONFIG_HOME/imgfs/config.toml, or ~/.config/imgfs/config.toml. named says that it
// was the variable. The path is "" if there is to be no file.
func Path() (path string, named bool) {
	if path, named = os.LookupEnv(Variable); named {
		return path, named
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home, err := os.UserHomeDir()
		if err != nil || !filepath.IsAbs(home) {
			return "", false
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "imgfs", "config.toml"), false
}

// Load reads the user's file. One that is not there is an error only if the variable
// names it. Errors have the path; those about what is in the file are an *Error.
func Load() (*File, error) {
	path, named := Path()
	if path == "" {
		return new(File), nil
	}
	text, err := read(path)
	var failed *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return new(File), nil
	case errors.As(err, &failed):
		return nil, &Error{path, 0, failed.Err}
	case err != nil:
		return nil, &Error{path, 0, err}
	}
	return parse(path, text)
}

// read returns what is in a file that is safe to believe.
func read(path string) (string, error) {
	f, err := open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", errors.New("it is not a regular file")
	case info.Size() > maxSize:
		return "", fmt.Errorf("it has more than %d bytes", maxSize)
	}
	if err := safe(info); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize))
	return string(text), err
}

// parse reads the text of a file.
func parse(path, text string) (*File, error) {
	if line := tooDeep(text); line > 0 {
		return nil, &Error{path, line, fmt.Errorf("more than %d brackets are open", maxDepth)}
	}
	var all map[string]any
	meta, err := toml.Decode(text, &all)
	if err != nil {
		line, reason := 0, err
		var bad toml.ParseError
		if errors.As(err, &bad) {
			line = bad.Position.Line
			reason = errors.New(strings.TrimPrefix(bad.Message, "toml: "))
		}
		return nil, &Error{path, line, reason}
	}
	f := &File{Path: path}
	lines := findLines(text)
	for _, key := range meta.Keys() {
		s := Setting{Command: strings.Join(key[:len(key)-1], " "), Key: key[len(key)-1], Line: lines[key.String()]}
		switch value := lookup(all, key).(type) {
		case map[string]any:
			s.Command, s.Key = strings.Join(key, " "), ""
		default:
			if s.Values, err = texts(value); err != nil {
				return nil, &Error{path, s.Line, fmt.Errorf("%s: %w", s.Key, err)}
			}
		}
		f.Settings = append(f.Settings, s)
	}
	return f, nil
}

// lookup returns the value of a key.
func lookup(all map[string]any, key toml.Key) any {
	var value any = all
	for _, k := range key {
		table, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = table[k]
	}
	return value
}

// texts returns a value as a command line would have it.
func texts(value any) ([]string, error) {
	switch v := value.(type) {
	case string:
		return []string{v}, nil
	case bool:
		return []string{strconv.FormatBool(v)}, nil
	case int64:
		return []string{strconv.FormatInt(v, 10)}, nil
	case []any:
		var all []string
		for _, element := range v {
			text, ok := element.(string)
			if !ok {
				return nil, errors.New("a list has texts, in quotes")
			}
			all = append(all, text)
		}
		return all, nil
	}
	return nil, errors.New("it is no text in quotes, no whole number, no list of texts and neither true nor false")
}

// findLines returns the lines where keys and tables begin, by what toml.Key.String
// makes of them. In a text of several lines something may look like a key: of two the
// first counts.
func findLines(text string) map[string]int {
	lines := make(map[string]int)
	table := ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		key, _, isKey := strings.Cut(line, "=")
		if rest, ok := strings.CutPrefix(line, "["); ok {
			rest, _, _ = strings.Cut(rest, "]")
			table = plain(rest)
			key, isKey = "", true
		}
		if !isKey {
			continue
		}
		name := strings.Trim(table+"."+plain(key), ".")
		if lines[name] == 0 {
			lines[name] = i + 1
		}
	}
	return lines
}

// plain removes the quotes and spaces of a dotted key.
func plain(key string) string {
	parts := strings.Split(key, ".")
	for i := range parts {
		parts[i] = strings.Trim(strings.TrimSpace(parts[i]), `"'`)
	}
	return strings.Join(parts, ".")
}
