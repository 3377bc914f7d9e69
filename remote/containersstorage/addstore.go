package containersstorage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Names in storage.conf.
const (
	storageTable = "storage"
	optionsTable = "storage.options"
	storesKey    = "additionalimagestores"
)

// ImageStoreLines returns the lines that name an additional image store in storage.conf, for
// people.
func ImageStoreLines(dir string) string {
	return fmt.Sprintf("[%s]\n%s = [%q]", optionsTable, storesKey, dir)
}

// WithImageStore returns the content that the file c.Own has to have for podman to look for
// images in dir as well: all that is in the file, or else in the one that counts without it,
// and the directory at the end of additionalimagestores. Comments stay. Nothing is written.
func (c *Config) WithImageStore(dir string) ([]byte, error) {
	text, err := os.ReadFile(c.Own)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = nil, nil
		if c.File != "" {
			text, err = os.ReadFile(c.File)
		}
		if c.Rootless { // the machine's places are not the user's
			text = withoutPlaces(text)
		}
	}
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("[" + storageTable + "]\ndriver = \"overlay\"\n")
	}
	edited, err := addImageStore(text, dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Own, err)
	}
	return edited, nil
}

// An entry of a TOML document is a line that says what a key is, or begins a table.
type tomlEntry struct {
	table string // that it is in, or begins
	key   string // "" for the beginning of a table
	// value and end are where the value is, or where the line of the table ends; last is
	// the end of the last thing in the value but its closing bracket.
	value, last, end int
}

// tomlEntries finds the entries of a document that the TOML library reads: it knows where
// strings, comments and arrays end, and no more.
func tomlEntries(text []byte) (all []tomlEntry) {
	table := ""
	for at := 0; at < len(text); {
		switch c := text[at]; c {
		case ' ', '\t', '\r', '\n':
			at++
		case '#':
			at = lineEnd(text, at)
		case '[':
			end := lineEnd(text, at)
			name, _, _ := strings.Cut(string(text[at:end]), "]")
			table = strings.NewReplacer(" ", "", "\t", "", `"`, "", "'", "", "[", "").Replace(name)
			all = append(all, tomlEntry{table: table, end: end})
			at = end
		default:
			equals := bytes.IndexByte(text[at:], '=')
			if equals < 0 {
				return all
			}
			e := tomlEntry{table: table, key: strings.TrimSpace(string(text[at : at+equals])), value: at + equals + 1}
			e.last, e.end = valueEnd(text, e.value)
			all = append(all, e)
			at = e.end
		}
	}
	return all
}

func lineEnd(text []byte, at int) int {
	if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
		return at + n
	}
	return len(text)
}

// valueEnd returns where a value ends, and where the last thing in it ends before its last
// bracket.
func valueEnd(text []byte, at int) (last, end int) {
	depth := 0
	for at < len(text) {
		switch c := text[at]; c {
		case '\n':
			if depth == 0 {
				return last, at
			}
			at++
		case '#':
			at = lineEnd(text, at)
		case '"', '\'':
			at = stringEnd(text, at)
			last = at
		case ' ', '\t', '\r':
			at++
		case ']', '}':
			depth--
			at++
			if depth > 0 {
				last = at
			}
		case '[', '{':
			depth++
			fallthrough
		default:
			at++
			last = at
		}
	}
	return last, at
}

// stringEnd returns where a string ends.
func stringEnd(text []byte, at int) int {
	quote := text[at : at+1]
	if long := bytes.Repeat(quote, 3); bytes.HasPrefix(text[at:], long) {
		quote = long
	}
	for at += len(quote); at < len(text); at++ {
		switch {
		case bytes.HasPrefix(text[at:], quote):
			return at + len(quote)
		case text[at] == '\\' && quote[0] == '"':
			at++
		}
	}
	return len(text)
}

// addImageStore adds a directory to the additional image stores of a storage.conf. What it
// makes is read again: it says the same as before, but for that.
func addImageStore(text []byte, dir string) ([]byte, error) {
	entries := tomlEntries(text)
	word := fmt.Sprintf("%q", dir)
	var edited []byte
	is := func(e tomlEntry) bool {
		return e.table == optionsTable && e.key == storesKey || e.table == storageTable && e.key == "options."+storesKey
	}
	if i := slices.IndexFunc(entries, is); i >= 0 {
		e := entries[i]
		switch before := bytes.TrimSpace(text[e.value:e.last]); {
		case len(before) == 0:
		case before[len(before)-1] == '[':
		case before[len(before)-1] == ',':
			word = " " + word
		default:
			word = ", " + word
		}
		edited = slices.Concat(text[:e.last], []byte(word), text[e.last:])
	} else if i := slices.IndexFunc(entries, func(e tomlEntry) bool { return e.table == optionsTable && e.key == "" }); i >= 0 {
		at := entries[i].end
		edited = slices.Concat(text[:at], []byte("\n"+storesKey+" = ["+word+"]"), text[at:])
	} else {
		sep := "\n"
		if len(text) > 0 && text[len(text)-1] != '\n' {
			sep = "\n\n"
		}
		edited = slices.Concat(text, []byte(sep+ImageStoreLines(dir)+"\n"))
	}
	return edited, checkEdited(text, edited, dir)
}

// errEdit says that a file is written in a way that the editing does not know.
var errEdit = errors.New("it cannot be edited without changing what it says; add the line by hand")

// checkEdited checks that a document says what another one does, and has a directory more.
func checkEdited(before, after []byte, dir string) error {
	was, is := map[string]any{}, map[string]any{}
	if err := toml.Unmarshal(before, &was); err != nil {
		return err
	}
	if err := toml.Unmarshal(after, &is); err != nil {
		return errEdit
	}
	stores := storesOf(was)
	if !reflect.DeepEqual(storesOf(is), append(stores, dir)) || !reflect.DeepEqual(is, was) {
		return errEdit
	}
	return nil
}

// storesOf takes the additional image stores out of what a document says.
func storesOf(doc map[string]any) []any {
	storage, _ := doc[storageTable].(map[string]any)
	options, _ := storage["options"].(map[string]any)
	stores, _ := options[storesKey].([]any)
	delete(options, storesKey)
	if len(options) == 0 {
		delete(storage, "options")
	}
	if len(storage) == 0 {
		delete(doc, storageTable)
	}
	return slices.Clone(stores)
}

// withoutPlaces makes comments of the lines that say where the machine's store is.
func withoutPlaces(text []byte) []byte {
	for _, e := range slices.Backward(tomlEntries(text)) {
		if e.table == storageTable && (e.key == "graphroot" || e.key == "runroot" || e.key == "imagestore") {
			at := bytes.LastIndexByte(text[:e.value], '\n') + 1
			text = slices.Concat(text[:at], []byte("# "), text[at:])
		}
	}
	return text
}
