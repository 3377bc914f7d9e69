package metrics

import (
	"bytes"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// A Type says how samples of a family change.
type Type string

// The types.
const (
	Counter Type = "counter" // only grows while the process lives; its name ends in _total
	Gauge   Type = "gauge"
)

// A Family is what is told of one thing.
type Family struct {
	Name    string
	Help    string // a sentence
	Type    Type
	Samples []Sample
}

// A Sample is one number of a family.
type Sample struct {
	Labels []Label // other ones than those of the family's other samples
	Value  float64
}

// A Label tells samples of a family apart.
type Label struct{ Name, Value string }

// One returns a family of one number.
func One(kind Type, name, help string, value float64) Family {
	return Family{Name: name, Help: help, Type: kind, Samples: []Sample{{Value: value}}}
}

// ContentType is the media type of what Text writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	valueEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Text writes families in the text format of Prometheus, version 0.0.4
// (prometheus.io/docs/instrumenting/exposition_formats). Bytes that are no UTF-8 become
// U+FFFD. The error is of the program that named the families, and no text then.
func Text(families []Family) ([]byte, error) {
	var b bytes.Buffer
	seen := make(map[string]bool)
	for _, f := range families {
		switch {
		case !metricName.MatchString(f.Name):
			return nil, fmt.Errorf("metric %q: that is no name", f.Name)
		case seen[f.Name]:
			return nil, fmt.Errorf("metric %s: it is there twice", f.Name)
		case f.Type == Counter && !strings.HasSuffix(f.Name, "_total"), f.Type == Gauge && strings.HasSuffix(f.Name, "_total"):
			return nil, fmt.Errorf("metric %s: it is a %s", f.Name, f.Type)
		}
		seen[f.Name] = true
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.Name, helpEscapes.Replace(strings.ToValidUTF8(f.Help, "\uFFFD")), f.Name, f.Type)
		samples := make(map[string]bool)
		for _, s := range f.Samples {
			labels, err := labelsText(s.Labels)
			if err == nil && samples[labels] {
				err = fmt.Errorf("the sample %s is there twice", labels)
			}
			if err != nil {
				return nil, fmt.Errorf("metric %s: %w", f.Name, err)
			}
			samples[labels] = true
			fmt.Fprintf(&b, "%s%s %s\n", f.Name, labels, number(s.Value))
		}
	}
	return b.Bytes(), nil
}

// labelsText writes labels as they stand behind a name.
func labelsText(labels []Label) (string, error) {
	if len(labels) == 0 {
		return "", nil
	}
	parts := make([]string, len(labels))
	seen := make(map[string]bool)
	for i, l := range labels {
		if !labelName.MatchString(l.Name) || strings.HasPrefix(l.Name, "__") || seen[l.Name] {
			return "", fmt.Errorf("label %q: that is no name of one, or the second one", l.Name)
		}
		seen[l.Name] = true
		parts[i] = l.Name + `="` + valueEscapes.Replace(strings.ToValidUTF8(l.Value, "\uFFFD")) + `"`
	}
	return "{" + strings.Join(parts, ",") + "}", nil
}

// number writes a value so that nothing of it is lost.
func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64) // NaN is written so, too
}
