package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/meshctl/meshctl/internal/finding"
)

// Rewrite passes every object of in, YAML or JSON, through change and returns the text with the changed ones in place. Documents whose object is
// not changed come out byte for byte; of the others, what is unchanged keeps its order, comments and style. change says whether it changed the
// object, and may modify its argument.
// The text is to be used only when there is no finding; name is the file's, for findings.
func Rewrite(name string, in []byte, change Change) ([]byte, []finding.Finding) {
	var out bytes.Buffer
	out.Grow(len(in) + len(in)/2)
	var fs []finding.Finding
	for _, doc := range split(in) {
		out.Write(doc.marker)
		text, f := doc.rewrite(change)
		if f != nil {
			f.Position.File = name
			fs = append(fs, *f)
			continue
		}
		out.Write(text)
	}
	return out.Bytes(), fs
}

// Change returns what is to stand in the place of obj, and whether that differs.
type Change func(obj map[string]any) (map[string]any, bool)

// document is one document of a file: the marker before it, its text, and the line the text begins at.
type document struct {
	marker, text []byte
	line         int
}

// split cuts a YAML stream at its document markers; joined again, marker and text of all documents are the stream.
func split(in []byte) []document {
	docs := []document{{line: 1}}
	line := 0
	for rest := in; len(rest) > 0; {
		line++
		end := bytes.IndexByte(rest, '\n') + 1
		if end == 0 {
			end = len(rest)
		}
		text := rest[:end]
		rest = rest[end:]
		marker := markerLen(text)
		if marker == 0 {
			last := &docs[len(docs)-1]
			last.text = append(last.text, text...)
			continue
		}
		begins := line
		if marker == len(text) {
			begins++
		}
		docs = append(docs, document{marker: text[:marker], text: slices.Clip(text[marker:]), line: begins})
	}
	return docs
}

// markerLen is how much of line is a document marker: all of it, unless the document begins on the same line.
func markerLen(line []byte) int {
	trimmed := bytes.TrimRight(line, " \t\r\n")
	for _, marker := range []string{"---", "..."} {
		rest, ok := bytes.CutPrefix(trimmed, []byte(marker))
		switch {
		case !ok:
		case len(rest) == 0:
			return len(line)
		case rest[0] == ' ' || rest[0] == '\t':
			if bytes.TrimLeft(rest, " \t")[0] == '#' {
				return len(line)
			}
			return len(marker)
		}
	}
	return 0
}

// empty says whether the document has no content: only blank lines, comments and directives.
func (d document) empty() bool {
	for line := range bytes.Lines(d.text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

func (d document) rewrite(change Change) ([]byte, *finding.Finding) {
	if d.empty() {
		return d.text, nil
	}
	if trimmed := bytes.TrimSpace(d.text); trimmed[0] == '{' {
		if out, ok := rewriteJSON(d.text, change); ok {
			return out, nil
		}
	}
	var node yaml.Node
	if err := yaml.Unmarshal(d.text, &node); err != nil {
		return nil, d.finding(err)
	}
	var value any
	if err := node.Decode(&value); err != nil {
		return nil, d.finding(err)
	}
	obj, ok := value.(map[string]any)
	if !ok {
		return nil, &finding.Finding{Code: finding.WrongType, Severity: finding.Error, Position: finding.Position{Line: d.line + max(node.Line, 1) - 1, Column: node.Column},
			Message: "the document is not a Kubernetes object", Hint: "an object is a mapping with apiVersion, kind and metadata"}
	}
	changed, yes := change(clone(obj).(map[string]any))
	if !yes {
		return d.text, nil
	}
	out, err := emit(&node, obj, changed)
	if err != nil {
		return nil, d.finding(err)
	}
	return out, nil
}

func (d document) finding(err error) *finding.Finding {
	f := decodeFindings("", err)[0]
	f.Code = finding.YAMLSyntax
	if strings.Contains(f.Message, "already defined") {
		f.Code = finding.DuplicateKey
	}
	if f.Position.Line > 0 {
		f.Position.Line += d.line - 1
	} else {
		f.Position.Line = d.line
	}
	return &f
}

// rewriteJSON handles one JSON object or several in a row; false when the text is not JSON.
func rewriteJSON(text []byte, change Change) ([]byte, bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var out bytes.Buffer
	var done int64
	for {
		var obj map[string]any
		err := dec.Decode(&obj)
		if errors.Is(err, io.EOF) {
			out.Write(text[done:])
			return out.Bytes(), true
		}
		if err != nil || obj == nil {
			return nil, false
		}
		end := dec.InputOffset()
		changed, yes := change(obj)
		if !yes {
			out.Write(text[done:end])
		} else {
			start := done + int64(bytes.IndexByte(text[done:end], '{'))
			out.Write(text[done:start])
			enc := json.NewEncoder(&out)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			if enc.Encode(changed) != nil {
				return nil, false
			}
			out.Truncate(out.Len() - 1) // the encoder's newline; the text has its own
		}
		done = end
	}
}

// emit writes changed into the document node, which holds was, and prints it.
func emit(node *yaml.Node, was, changed map[string]any) ([]byte, error) {
	indent, compact := style(node)
	if err := patch(node.Content[0], was, changed); err != nil {
		return nil, err
	}
	spellNulls(node, false)
	out, err := encodeText(node, indent, compact)
	if err != nil {
		return nil, err
	}
	// Aliases and merge keys can make an edit reach further than meant; then the values count for more than the style.
	if bytes.ContainsAny(out, "&*") || bytes.Contains(out, []byte("<<")) {
		var back any
		if yaml.Unmarshal(out, &back) != nil || !sameValue(back, changed) {
			return encodeText(changed, indent, compact)
		}
	}
	return out, nil
}

// spellNulls writes out what was left empty within braces or brackets, where the printer would make an empty text of it.
func spellNulls(n *yaml.Node, flow bool) {
	flow = flow || n.Style&yaml.FlowStyle != 0
	if flow && n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == "" {
		n.Value = "null"
	}
	for _, c := range n.Content {
		spellNulls(c, flow)
	}
}

func sameValue(a, b any) bool {
	x, err := yaml.Marshal(a)
	if err != nil {
		return false
	}
	y, err := yaml.Marshal(b)
	return err == nil && bytes.Equal(x, y)
}

func encodeText(v any, indent int, compact bool) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(indent)
	if compact {
		enc.CompactSeqIndent()
	}
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("writing the changed object: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing the changed object: %w", err)
	}
	return b.Bytes(), nil
}

// style finds how the document is indented: the step of its first nested mapping, and whether its first list in a mapping is flush with the key.
func style(node *yaml.Node) (indent int, compact bool) {
	indent, compact = 0, true
	listSeen := false
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 1 && c.Style&yaml.FlowStyle == 0 && c.Line > n.Content[i-1].Line {
				key := n.Content[i-1]
				if c.Kind == yaml.MappingNode && indent == 0 && c.Column > key.Column {
					indent = c.Column - key.Column
				}
				if c.Kind == yaml.SequenceNode && !listSeen {
					listSeen, compact = true, c.Column <= key.Column
				}
			}
			if indent == 0 || !listSeen {
				walk(c)
			}
		}
	}
	walk(node)
	if indent < 2 || indent > 9 {
		indent = 2
	}
	return indent, compact
}

// patch edits n, which holds was, so that it holds value.
func patch(n *yaml.Node, was, value any) error {
	if reflect.DeepEqual(was, value) {
		return nil
	}
	oldMap, ok1 := was.(map[string]any)
	newMap, ok2 := value.(map[string]any)
	if ok1 && ok2 && n.Kind == yaml.MappingNode {
		return patchMapping(n, oldMap, newMap)
	}
	oldList, ok1 := was.([]any)
	newList, ok2 := value.([]any)
	if ok1 && ok2 && n.Kind == yaml.SequenceNode {
		return patchSequence(n, oldList, newList)
	}
	fresh, err := encode(value)
	if err != nil {
		return err
	}
	fresh.HeadComment, fresh.LineComment, fresh.FootComment = n.HeadComment, n.LineComment, n.FootComment
	*n = *fresh
	return nil
}

func patchMapping(n *yaml.Node, was, value map[string]any) error {
	var content []*yaml.Node
	left := maps.Clone(value)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, node := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			content = append(content, key, node)
			continue
		}
		v, ok := left[key.Value]
		if !ok {
			continue
		}
		delete(left, key.Value)
		if err := patch(node, was[key.Value], v); err != nil {
			return err
		}
		content = append(content, key, node)
	}
	for _, k := range slices.Sorted(maps.Keys(left)) {
		if old, ok := was[k]; ok && reflect.DeepEqual(old, left[k]) {
			continue // it came with a merge key
		}
		key, err := encode(k)
		if err != nil {
			return err
		}
		node, err := encode(left[k])
		if err != nil {
			return err
		}
		content = append(content, key, node)
	}
	n.Content = content
	if len(was) == 0 {
		n.Style &^= yaml.FlowStyle // an empty mapping can only be written {}
	}
	return nil
}

// patchSequence keeps the node of every element that is still there, equal or of the same name.
func patchSequence(n *yaml.Node, was, value []any) error {
	used := make([]bool, len(was))
	content := make([]*yaml.Node, 0, len(value))
	for _, v := range value {
		i := slices.IndexFunc(was, func(old any) bool { return reflect.DeepEqual(old, v) })
		for i >= 0 && i < len(was) && used[i] {
			next := slices.IndexFunc(was[i+1:], func(old any) bool { return reflect.DeepEqual(old, v) })
			if next < 0 {
				i = -1
			} else {
				i += 1 + next
			}
		}
		if i < 0 {
			i = slices.IndexFunc(was, func(old any) bool { return nameOf(old) != "" && nameOf(old) == nameOf(v) })
		}
		if i >= 0 && !used[i] {
			used[i] = true
			if err := patch(n.Content[i], was[i], v); err != nil {
				return err
			}
			content = append(content, n.Content[i])
			continue
		}
		node, err := encode(v)
		if err != nil {
			return err
		}
		content = append(content, node)
	}
	n.Content = content
	if len(was) == 0 {
		n.Style &^= yaml.FlowStyle
	}
	return nil
}

// nameOf identifies a list's element: its name, or for a List's items kind and metadata.name too.
func nameOf(v any) string {
	m, _ := v.(map[string]any)
	if name, ok := m["name"].(string); ok {
		return name
	}
	kind, _ := m["kind"].(string)
	meta, _ := m["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	namespace, _ := meta["namespace"].(string)
	if kind == "" {
		return ""
	}
	return strconv.Quote(kind) + namespace + "/" + name
}

// encode makes a node of v. What injection adds is made of mappings, lists, strings, numbers and bools, for which the library's way, by text and
// back, would cost more than all the rest.
func encode(v any) (*yaml.Node, error) {
	switch v := v.(type) {
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: make([]*yaml.Node, 0, 2*len(v))}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			value, err := encode(v[k])
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, text(k), value)
		}
		return n, nil
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: make([]*yaml.Node, 0, len(v))}
		for _, e := range v {
			value, err := encode(e)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, value)
		}
		return n, nil
	case string:
		return text(v), nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}, nil
	case int:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(v)}, nil
	default:
		var n yaml.Node
		if err := n.Encode(v); err != nil {
			return nil, fmt.Errorf("writing the changed object: %w", err)
		}
		return &n, nil
	}
}

// oldYAML matches strings that YAML 1.1, which Kubernetes reads, takes for a bool or for a number of base 60.
var oldYAML = regexp.MustCompile(`^(?i:y|yes|n|no|on|off)$|^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)

func text(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if !utf8.ValidString(s) {
		n.SetString(s) // as binary
	} else if (len(s) <= len("yes") || strings.Contains(s, ":")) && oldYAML.MatchString(s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
