package show

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"reflect"
	"unicode/utf8"

	"github.com/imgfs/imgfs/remote/printable"
)

// JSON prints a document, as Marshal writes it but on several lines.
func JSON(w io.Writer, v any) error {
	text, err := Marshal(v)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "    "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// Marshal writes a document that is harmless wherever it is looked at. The text
// of JSON is UTF-8. For a name, a field X, that is not UTF-8 Marshal sets the field
// XBytes, if the struct has one of NameBytes beside X; nobody else sets such a
// field.
func Marshal(v any) ([]byte, error) {
	doc := reflect.New(reflect.TypeOf(v))
	doc.Elem().Set(reflect.ValueOf(v))
	eachName(doc, noteBytes)
	defer eachName(doc, func(_, beside reflect.Value) { beside.SetZero() }) // lists are v's own
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc.Interface()); err != nil {
		return nil, err
	}
	return printable.JSON(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// Unmarshal reads into v what Marshal wrote, with the names that are not UTF-8.
func Unmarshal(text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return err
	}
	eachName(reflect.ValueOf(v), takeBytes)
	return nil
}

// eachName calls do for every name of a document: a field X, a string or a list of
// strings, with a field XBytes of NameBytes beside it.
func eachName(v reflect.Value, do func(name, beside reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			eachName(v.Elem(), do)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			eachName(v.Index(i), do)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if beside := v.FieldByName(f.Name + "Bytes"); beside.IsValid() && holdsBytes(beside.Type()) {
				do(v.Field(i), beside)
			} else if f.IsExported() || f.Anonymous {
				eachName(v.Field(i), do)
			}
		}
	}
}

// NameBytes are the bytes of a name that is not UTF-8; in JSON they are base64.
// See Marshal.
type NameBytes string

// MarshalText implements encoding.TextMarshaler.
func (b NameBytes) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, []byte(b)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *NameBytes) UnmarshalText(text []byte) error {
	decoded, err := base64.StdEncoding.AppendDecode(nil, text)
	*b = NameBytes(decoded)
	return err
}

func holdsBytes(t reflect.Type) bool {
	return t == reflect.TypeFor[NameBytes]() || t == reflect.TypeFor[[]NameBytes]()
}

// noteBytes sets the bytes of a name that is not UTF-8, or of all names of a list if
// one of them is not.
func noteBytes(name, beside reflect.Value) {
	beside.SetZero()
	if name.Kind() == reflect.String {
		if !utf8.ValidString(name.String()) {
			beside.SetString(name.String())
		}
		return
	}
	all, valid := make([]NameBytes, name.Len()), true
	for i := range all {
		s := name.Index(i).String()
		all[i], valid = NameBytes(s), valid && utf8.ValidString(s)
	}
	if !valid {
		beside.Set(reflect.ValueOf(all))
	}
}

// takeBytes replaces a name, or the names of a list, by the bytes beside it, unless
// these are another name's.
func takeBytes(name, beside reflect.Value) {
	if name.Kind() == reflect.String {
		takeName(name, beside.String())
	} else if beside.Len() == name.Len() {
		for i := range name.Len() {
			takeName(name.Index(i), beside.Index(i).String())
		}
	}
	beside.SetZero()
}

func takeName(name reflect.Value, bytes string) {
	if !utf8.ValidString(bytes) && string([]rune(bytes)) == name.String() {
		name.SetString(bytes)
	}
}
