package manifest

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/meshctl/meshctl/internal/finding"
)

// locator finds fields again in the nodes of their document. Keys count as found in either of their spellings.
type locator struct {
	file   string
	node   *yaml.Node
	offset int
}

// Locate implements objects.Locator: a mapping's entry is at its key, a list's at its first character.
func (l *locator) Locate(field string) finding.Position {
	at, _ := l.walk(field)
	return finding.Position{File: l.file, Line: l.offset + at.Line, Column: at.Column}
}

// below is the locator of an object within the document.
func (l *locator) below(field string) *locator {
	_, value := l.walk(field)
	return &locator{file: l.file, node: value, offset: l.offset}
}

// walk follows field as far as it exists: the node to point at, and the node of the value.
func (l *locator) walk(field string) (at, value *yaml.Node) {
	at, value = l.node, l.node
	for _, step := range finding.Steps(field) {
		for value.Kind == yaml.AliasNode && value.Alias != nil {
			value = value.Alias
		}
		switch {
		case step.Key == "" && value.Kind == yaml.SequenceNode && step.Index >= 0 && step.Index < len(value.Content):
			at, value = value.Content[step.Index], value.Content[step.Index]
		case step.Key != "" && value.Kind == yaml.MappingNode:
			key, entry := lookup(value, step.Key)
			if key == nil {
				return at, value
			}
			at, value = key, entry
		default:
			return at, value
		}
	}
	return at, value
}

func lookup(mapping *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		k := mapping.Content[i]
		if k.Value == name {
			return k, mapping.Content[i+1]
		}
		if key == nil && camel(k.Value) == name {
			key, value = k, mapping.Content[i+1]
		}
	}
	return key, value
}

// tree turns the nodes of a document into plain values: maps, lists, strings, bools, int64 and float64.
type tree struct {
	*reader
	offset int
	// open are the anchors being expanded.
	open []*yaml.Node
}

func (t *tree) fail(code finding.Code, n *yaml.Node, path, message, hint string) {
	t.find(finding.Finding{
		Code: code, Severity: finding.Error, Field: path, Position: finding.Position{Line: t.offset + n.Line, Column: n.Column},
		Message: message, Hint: hint,
	})
}

// value converts n; false means that a finding said why not.
func (t *tree) value(n *yaml.Node, path string, depth int) (any, bool) {
	t.nodes++
	if t.nodes > MaxNodes {
		if !t.stopped {
			t.stopped = true
			t.fail(finding.TooLarge, n, "", fmt.Sprintf("the file has more than %d values once its aliases are expanded", MaxNodes), "")
		}
		return nil, false
	}
	if depth > MaxDepth {
		t.fail(finding.TooLarge, n, "", fmt.Sprintf("values are nested deeper than %d", MaxDepth), "")
		return nil, false
	}
	switch n.Kind {
	case yaml.MappingNode:
		return t.mapping(n, path, depth)
	case yaml.SequenceNode:
		list, good := make([]any, 0, len(n.Content)), true
		for i, c := range n.Content {
			v, ok := t.value(c, finding.Item(path, i), depth+1)
			if !ok {
				good = false
				if t.stopped {
					break
				}
			}
			list = append(list, v)
		}
		return list, good
	case yaml.AliasNode:
		if slices.Contains(t.open, n.Alias) {
			t.fail(finding.YAMLSyntax, n, path, fmt.Sprintf("anchor %s contains itself", n.Value), "")
			return nil, false
		}
		t.open = append(t.open, n.Alias)
		v, ok := t.value(n.Alias, path, depth+1)
		t.open = t.open[:len(t.open)-1]
		return v, ok
	case yaml.ScalarNode:
		return t.scalar(n, path)
	default:
		t.fail(finding.YAMLSyntax, n, path, "the value cannot be read", "")
		return nil, false
	}
}

func (t *tree) mapping(n *yaml.Node, path string, depth int) (any, bool) {
	m, good := make(map[string]any, len(n.Content)/2), true
	lines := make(map[string]int, len(n.Content)/2)
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			t.fail(finding.WrongType, key, path, "a key must be a string", "")
			good = false
			continue
		}
		if key.ShortTag() == "!!merge" {
			merges = append(merges, value)
			continue
		}
		at := finding.Child(path, key.Value)
		if line, twice := lines[key.Value]; twice {
			t.fail(finding.DuplicateKey, key, at, fmt.Sprintf("the key is already at line %d", line), "keep one of them")
			good = false
			continue
		}
		lines[key.Value] = t.offset + key.Line
		v, ok := t.value(value, at, depth+1)
		good = good && ok
		m[key.Value] = v
		if t.stopped {
			return nil, false
		}
	}
	for _, merge := range merges {
		good = t.merge(m, merge, path, depth) && good
	}
	return m, good
}

// merge adds what a "<<" key brings: one mapping or a list of them, the first to name a key having it.
func (t *tree) merge(m map[string]any, n *yaml.Node, path string, depth int) bool {
	v, ok := t.value(n, path, depth+1)
	if !ok {
		return false
	}
	sources, isList := v.([]any)
	if !isList {
		sources = []any{v}
	}
	for _, source := range sources {
		from, isMap := source.(map[string]any)
		if !isMap {
			t.fail(finding.WrongType, n, path, "<< takes a mapping or a list of mappings", "")
			return false
		}
		for key, value := range from {
			if _, has := m[key]; !has {
				m[key] = value
			}
		}
	}
	return true
}

func (t *tree) scalar(n *yaml.Node, path string) (any, bool) {
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	switch tag := n.ShortTag(); tag {
	case "!!null":
		return nil, true
	case "!!str", "!!timestamp":
		if b, ok := oldBool(n.Value); ok && plain && n.Style&yaml.TaggedStyle == 0 {
			return b, true
		}
		return n.Value, true
	case "!!bool":
		b, err := strconv.ParseBool(strings.ToLower(n.Value))
		if err == nil {
			return b, true
		}
	case "!!int", "!!float":
		if v, ok := number(n); ok {
			return v, true
		}
		t.fail(finding.WrongType, n, path, fmt.Sprintf("%s is no number that JSON can hold", n.Value), "")
		return nil, false
	}
	t.fail(finding.WrongType, n, path, fmt.Sprintf("a value tagged %s has no meaning here", n.Tag), "remove the tag")
	return nil, false
}

// oldBool reads the spellings of YAML 1.1, which kubectl takes for booleans too.
func oldBool(s string) (value, ok bool) {
	switch s {
	case "y", "Y", "yes", "Yes", "YES", "on", "On", "ON":
		return true, true
	case "n", "N", "no", "No", "NO", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}

func number(n *yaml.Node) (any, bool) {
	var i int64
	if n.ShortTag() == "!!int" && n.Decode(&i) == nil {
		return i, true
	}
	var f float64
	err := n.Decode(&f)
	if err != nil {
		f, err = strconv.ParseFloat(n.Value, 64)
	}
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, false
	}
	// JSON does not tell 1e3 from 1000.
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f), true
	}
	return f, true
}

// describe names a value's type for a message.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return fmt.Sprintf("a boolean (%t)", v)
	case int64:
		return fmt.Sprintf("a number (%d)", v)
	case float64:
		return "a number (" + strconv.FormatFloat(v, 'g', -1, 64) + ")"
	case []any:
		return "a list"
	default:
		return "a mapping"
	}
}
