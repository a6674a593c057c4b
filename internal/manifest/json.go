package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"

	"github.com/meshctl/meshctl/internal/finding"
)

// json reads concatenated JSON values. It says false, having read nothing, when the text is rather YAML that begins with a bracket.
func (r *reader) json(data []byte) bool {
	j := &jsonReader{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), line: 1}
	j.decoder.UseNumber()
	var roots []*yaml.Node
	for {
		n, err := j.next(0)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if len(roots) == 0 && looksLikeYAML(data) {
				return false
			}
			for _, n := range roots {
				r.root(n, 0)
			}
			r.find(j.finding(r, err))
			return true
		}
		roots = append(roots, n)
		if len(roots) > MaxDocuments {
			break
		}
	}
	for _, n := range roots {
		r.root(n, 0)
	}
	return true
}

// looksLikeYAML says whether text that begins with a bracket is a flow mapping rather than broken JSON: its first key has no quotes.
func looksLikeYAML(data []byte) bool {
	rest := bytes.TrimLeft(data, " \t\r\n[{")
	return len(rest) > 0 && rest[0] != '"' && rest[0] != '}' && rest[0] != ']'
}

var errTooDeep = fmt.Errorf("values are nested deeper than %d", MaxDepth)

// jsonReader builds the nodes that the YAML parser would, with their positions.
type jsonReader struct {
	data    []byte
	decoder *json.Decoder
	// line and start are those of the offset last located.
	line, start, seen int
}

// locate fills in the position of the token that was just read, which ends at the decoder's offset and began after from.
func (j *jsonReader) locate(n *yaml.Node, from int) {
	for from < len(j.data) && bytes.IndexByte([]byte(" \t\r\n,:"), j.data[from]) >= 0 {
		from++
	}
	for ; j.seen < from; j.seen++ {
		if j.data[j.seen] == '\n' {
			j.line++
			j.start = j.seen + 1
		}
	}
	n.Line, n.Column = j.line, from-j.start+1
}

func (j *jsonReader) next(depth int) (*yaml.Node, error) {
	from := int(j.decoder.InputOffset())
	token, err := j.decoder.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode}
	j.locate(n, from)
	switch v := token.(type) {
	case json.Delim:
		if depth >= MaxDepth {
			return nil, errTooDeep
		}
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if v == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		for j.decoder.More() {
			child, err := j.next(depth + 1)
			if err != nil {
				return nil, ended(err)
			}
			n.Content = append(n.Content, child)
		}
		_, err := j.decoder.Token()
		return n, ended(err)
	case string:
		n.Tag, n.Value, n.Style = "!!str", v, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!float", v.String()
		if _, err := v.Int64(); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", fmt.Sprint(v)
	case nil:
		n.Tag = "!!null"
	}
	return n, nil
}

// ended keeps an end inside of a value apart from the end of the stream.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (j *jsonReader) finding(r *reader, err error) finding.Finding {
	f := finding.Finding{Code: finding.YAMLSyntax, Severity: finding.Error, Position: r.offset(j.data, int(j.decoder.InputOffset())), Message: "the text is not JSON: " + err.Error()}
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, errTooDeep):
		f.Code, f.Message = finding.TooLarge, err.Error()
	case errors.Is(err, io.ErrUnexpectedEOF):
		f.Message, f.Hint = "the text ends inside of a JSON value", "a bracket that is opened must be closed"
	case errors.As(err, &syntax):
		f.Position = r.offset(j.data, max(0, int(syntax.Offset)-1))
	}
	return f
}
