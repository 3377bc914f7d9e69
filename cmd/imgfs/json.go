package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"unicode/utf8"

	"github.com/imgfs/imgfs/remote/printable"
)

// printJSON prints a document.
func (e *env) printJSON(v any) error {
	text, err := marshal(v)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "    "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = e.stdout.Write(b.Bytes())
	return err
}

// marshal writes a document that is harmless wherever it is looked at. JSON has
// no other text than UTF-8: a name that is not has its bytes beside it, in the
// member that is called XBytes where the name is X.
func marshal(v any) ([]byte, error) {
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

// unmarshal reads into v what marshal wrote, names that are no UTF-8 included.
func unmarshal(text []byte, v any) error {
	if err := json.Unmarshal(text, v); err != nil {
		return err
	}
	eachName(reflect.ValueOf(v), takeBytes)
	return nil
}

// eachName calls do for every field X, a string or strings, of a document's
// structs that has a field XBytes, of nameBytes, beside it.
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

// nameBytes are the bytes of a name that is no UTF-8; in JSON they are base64.
type nameBytes string

// MarshalText implements encoding.TextMarshaler.
func (b nameBytes) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, []byte(b)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *nameBytes) UnmarshalText(text []byte) error {
	decoded, err := base64.StdEncoding.AppendDecode(nil, text)
	*b = nameBytes(decoded)
	return err
}

func holdsBytes(t reflect.Type) bool {
	return t == reflect.TypeFor[nameBytes]() || t == reflect.TypeFor[[]nameBytes]()
}

// noteBytes sets the bytes of a name, or of names, if there is one of them that
// is no UTF-8.
func noteBytes(name, beside reflect.Value) {
	beside.SetZero()
	if name.Kind() == reflect.String {
		if !utf8.ValidString(name.String()) {
			beside.SetString(name.String())
		}
		return
	}
	all, valid := make([]nameBytes, name.Len()), true
	for i := range all {
		s := name.Index(i).String()
		all[i], valid = nameBytes(s), valid && utf8.ValidString(s)
	}
	if !valid {
		beside.Set(reflect.ValueOf(all))
	}
}

// takeBytes gives a name, or names, the bytes that are beside them, unless they
// are those of another name.
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
