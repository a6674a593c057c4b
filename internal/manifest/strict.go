package manifest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// walker holds plain values against Go types: what a field is called, and what it takes.
type walker struct {
	*subject
	// mesh kinds take snake_case names and enums by number too, and refuse unknown fields. What a Kubernetes kind does not know here may be
	// newer than this program, so the API server has the last word.
	mesh bool
}

// object is content as the type of value has it.
func (w *walker) object(content map[string]any, value objects.Value) map[string]any {
	return w.structure(content, reflect.TypeOf(value).Elem(), "")
}

// metadata judges the one part that every kind shares. The content stays as it is.
func (w *walker) metadata(content map[string]any) {
	w.value(content["metadata"], reflect.TypeFor[metav1.ObjectMeta](), "metadata")
}

func (w *walker) structure(m map[string]any, t reflect.Type, path string) map[string]any {
	out := make(map[string]any, len(m))
	known := w.fields(t)
	// In order of name, for findings come in a fixed order and of two spellings the current one wins.
	for _, name := range sortedKeys(m) {
		at := finding.Child(path, name)
		field, ok := known[name]
		current := name
		if !ok && w.mesh {
			current = camel(name)
			field, ok = known[current]
			if _, both := m[current]; ok && both {
				w.find(finding.DuplicateKey, finding.Error, at, fmt.Sprintf("%s is given too, which is the same field", current), "keep one of them")
				continue
			}
		}
		if !ok {
			w.unknown(known, name, at)
			if !w.mesh && m[name] != nil {
				out[name] = m[name] // the API server has the last word, so it must see the field
			}
			continue
		}
		if v, ok := w.value(m[name], field, finding.Child(path, current)); ok {
			out[current] = v
		}
	}
	return out
}

func (w *walker) unknown(known map[string]reflect.Type, name, at string) {
	names := make([]string, 0, len(known))
	for n := range known {
		if n != "status" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	hint := ""
	if near := finding.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	} else if len(names) <= 20 {
		hint = "the fields are " + strings.Join(names, ", ")
	}
	severity := finding.Warning
	if w.mesh {
		severity = finding.Error
	}
	w.find(finding.UnknownField, severity, at, fmt.Sprintf("unknown field %q", name), hint)
	w.unread = append(w.unread, at)
}

// value is v as t has it; false when it is unset or a finding said what is wrong.
func (w *walker) value(v any, t reflect.Type, path string) (any, bool) {
	if v == nil {
		return nil, false
	}
	if t.Kind() == reflect.Pointer {
		return w.value(v, t.Elem(), path)
	}
	if t == reflect.TypeFor[metav1.Duration]() {
		return w.duration(v, path)
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return w.custom(v, t, path)
	}
	switch t.Kind() {
	case reflect.Struct:
		if m, ok := v.(map[string]any); ok {
			return w.structure(m, t, path), true
		}
		hint := ""
		if s, ok := v.(string); ok && t == reflect.TypeFor[v1alpha2.StringMatch]() {
			hint = fmt.Sprintf("write exact: %q, or prefix or regex", s)
		}
		return w.wrong(path, "a mapping", v, hint)
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			return w.wrong(path, "a mapping", v, "")
		}
		out := make(map[string]any, len(m))
		for _, key := range sortedKeys(m) {
			if item, ok := w.value(m[key], t.Elem(), finding.Child(path, key)); ok {
				out[key] = item
			}
		}
		return out, true
	case reflect.Slice:
		return w.list(v, t, path)
	case reflect.String:
		return w.text(v, t, path)
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			return w.wrong(path, "true or false", v, "")
		}
		return v, true
	case reflect.Int32, reflect.Int64, reflect.Int, reflect.Uint8, reflect.Uint32:
		return w.integer(v, t, path)
	case reflect.Float64, reflect.Float32:
		switch v.(type) {
		case int64, float64:
			return v, true
		}
		return w.wrong(path, "a number", v, unquote(v))
	default:
		return v, true
	}
}

func (w *walker) wrong(path, want string, v any, hint string) (any, bool) {
	return w.leaveOut(path, fmt.Sprintf("expected %s, found %s", want, describe(v)), hint)
}

// leaveOut goes on without the value at path, so that the rest of the object is judged too.
func (w *walker) leaveOut(path, message, hint string) (any, bool) {
	before := w.broken
	w.find(finding.WrongType, finding.Error, path, message, hint)
	w.broken = before || !w.mesh // nobody here judges other kinds further
	w.unread = append(w.unread, path)
	return nil, false
}

// unquote is the hint for a number or boolean in quotes.
func unquote(v any) string {
	if s, ok := v.(string); ok && s != "" && strings.Trim(s, "-.0123456789") == "" {
		return "write it without quotes"
	}
	return ""
}

func (w *walker) list(v any, t reflect.Type, path string) (any, bool) {
	if t.Elem().Kind() == reflect.Uint8 {
		s, ok := v.(string)
		if !ok {
			return w.wrong(path, "base64 text", v, "")
		}
		if _, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), "")); err != nil {
			return w.leaveOut(path, "the text is not base64: "+err.Error(), "")
		}
		return v, true
	}
	list, ok := v.([]any)
	if !ok {
		hint := ""
		if _, isMap := v.(map[string]any); isMap {
			hint = "begin each entry with a dash"
		}
		return w.wrong(path, "a list", v, hint)
	}
	out := make([]any, 0, len(list))
	for i, item := range list {
		at := finding.Item(path, i)
		if item == nil {
			w.wrong(at, typeWord(t.Elem()), item, "remove the empty entry")
			w.broken = true
			continue
		}
		item, ok := w.value(item, t.Elem(), at)
		if !ok {
			// Without the entry those behind it would be judged under other numbers.
			w.broken = true
			continue
		}
		out = append(out, item)
	}
	return out, true
}

func typeWord(t reflect.Type) string {
	if t.Kind() == reflect.String {
		return "a string"
	}
	return "an entry"
}

func (w *walker) text(v any, t reflect.Type, path string) (any, bool) {
	if s, ok := v.(string); ok {
		return s, true
	}
	if t == reflect.TypeFor[v1alpha2.LoadBalancingScheme]() {
		schemes := v1alpha2.LoadBalancingSchemes()
		if n, ok := v.(int64); ok && n >= 0 && n < int64(len(schemes)) {
			return string(schemes[n]), true
		}
		return w.wrong(path, fmt.Sprintf("one of %s", schemes), v, "")
	}
	hint := ""
	switch v.(type) {
	case int64, float64:
		hint = "put it in quotes"
	case bool:
		hint = "put it in quotes: a bare yes, no, on, off, y or n is a boolean too"
	}
	return w.wrong(path, "a string", v, hint)
}

func (w *walker) integer(v any, t reflect.Type, path string) (any, bool) {
	n, ok := v.(int64)
	if f, isFloat := v.(float64); isFloat && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		n, ok = int64(f), true
	}
	if !ok {
		return w.wrong(path, "a whole number", v, unquote(v))
	}
	zero := reflect.Zero(t)
	if zero.CanInt() && zero.OverflowInt(n) || zero.CanUint() && (n < 0 || zero.OverflowUint(uint64(n))) {
		return w.leaveOut(path, fmt.Sprintf("%d is beyond what the field can hold", n), "")
	}
	return n, true
}

func (w *walker) duration(v any, path string) (any, bool) {
	s, ok := v.(string)
	if ok {
		if _, err := time.ParseDuration(s); err == nil {
			return s, true
		}
		return w.leaveOut(path, fmt.Sprintf("%q is no duration", s), "write it like 7s, 1m30s or 250ms")
	}
	hint := "write it like 7s, 1m30s or 250ms"
	if n, isInt := v.(int64); isInt {
		hint = fmt.Sprintf("a duration has a unit: write %ds for seconds", n)
	}
	return w.wrong(path, "a duration", v, hint)
}

// custom is for types with a form of their own, such as quantities and times: they are asked themselves.
func (w *walker) custom(v any, t reflect.Type, path string) (any, bool) {
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, reflect.New(t).Interface())
	}
	if err != nil {
		return w.leaveOut(path, fmt.Sprintf("%s is no %s", describe(v), t.Name()), strings.TrimPrefix(err.Error(), "json: "))
	}
	return v, true
}

// fields are the names and types of a struct's JSON fields, those of inlined structs among them.
func (r *reader) fields(t reflect.Type) map[string]reflect.Type {
	if known := r.types[t]; known != nil {
		return known
	}
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			maps.Copy(out, r.fields(f.Type))
		case name == "":
			out[f.Name] = f.Type
		default:
			out[name] = f.Type
		}
	}
	r.types[t] = out
	return out
}

// camel is the current spelling of a snake_case name.
func camel(name string) string {
	if !strings.Contains(name, "_") {
		return name
	}
	var b strings.Builder
	upper := false
	for _, r := range name {
		switch {
		case r == '_' && b.Len() > 0:
			upper = true
		case upper:
			b.WriteRune(unicode.ToUpper(r))
			upper = false
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func sortedKeys(m map[string]any) []string {
	return slices.Sorted(maps.Keys(m))
}
