package proxystate

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
)

// decode reads JSON and keeps its numbers as they are written.
func decode(data []byte) (map[string]any, error) {
	var out map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one value")
	}
	return out, nil
}

// at follows the path into a tree of JSON; nil when there is nothing.
func at(v any, path ...string) any {
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// text is the string or number at the path, empty when there is neither.
func text(v any, path ...string) string {
	switch s := at(v, path...).(type) {
	case string:
		return s
	case json.Number:
		return s.String()
	case bool:
		return strconv.FormatBool(s)
	}
	return ""
}

// list is the array at the path.
func list(v any, path ...string) []any {
	l, _ := at(v, path...).([]any)
	return l
}

// has says whether the path leads to something.
func has(v any, path ...string) bool { return at(v, path...) != nil }
