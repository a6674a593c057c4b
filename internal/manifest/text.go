package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/meshctl/meshctl/internal/finding"
)

const byteOrderMark = "\ufeff"

// checkText says in one finding what is no text at all, before a parser has to make sense of it.
func (r *reader) checkText(data []byte) bool {
	if len(data) > MaxBytes {
		r.find(finding.Finding{
			Code: finding.TooLarge, Severity: finding.Error,
			Message: fmt.Sprintf("the input is %d bytes, more than the %d that are read", len(data), MaxBytes), Hint: "split the file",
		})
		return false
	}
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && size <= 1 || c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f {
			hint := "is it YAML or JSON?"
			if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
				hint = "it looks like UTF-16: save it as UTF-8"
			}
			r.find(finding.Finding{
				Code: finding.YAMLSyntax, Severity: finding.Error, Position: r.offset(data, i),
				Message: fmt.Sprintf("the input is not UTF-8 text: byte 0x%02x", data[i]), Hint: hint,
			})
			return false
		}
		i += size
	}
	return true
}

// offset is the position of the i-th byte.
func (r *reader) offset(data []byte, i int) finding.Position {
	i = min(i, len(data))
	line := bytes.Count(data[:i], []byte("\n"))
	start := bytes.LastIndexByte(data[:i], '\n') + 1
	return finding.Position{File: r.name, Line: line + 1, Column: utf8.RuneCount(data[start:i]) + 1}
}

// documents cuts the stream and reads each document by itself, so that a mistake in one hides nothing in the others.
func (r *reader) documents(data []byte) {
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	if start := bytes.TrimLeft(data, " \t\r\n"); len(start) > 0 && (start[0] == '{' || start[0] == '[') {
		if r.json(data) {
			return
		}
	}
	for _, d := range split(data) {
		if r.stopped {
			return
		}
		r.yaml(d)
	}
}

// chunk is a piece of a YAML stream that begins after line lines of it.
type chunk struct {
	text []byte
	line int
}

// split cuts a YAML stream at its document markers, which can only stand at the beginning of a line. What comes before the first marker and
// holds directives and comments alone belongs to the document that follows.
func split(data []byte) []chunk {
	var chunks []chunk
	begin, beginLine, line, content := 0, 0, 0, false
	for i := 0; i < len(data); line++ {
		end := len(data)
		if n := bytes.IndexByte(data[i:], '\n'); n >= 0 {
			end = i + n + 1
		}
		text := bytes.TrimRight(data[i:end], "\r\n")
		if marker(text) {
			if content {
				chunks = append(chunks, chunk{data[begin:i], beginLine})
				begin, beginLine = i, line
			}
			content = true
		} else if trimmed := bytes.TrimLeft(text, " \t"); len(trimmed) > 0 && trimmed[0] != '#' && text[0] != '%' {
			content = true
		}
		i = end
	}
	return append(chunks, chunk{data[begin:], beginLine})
}

// marker says whether the line begins a document.
func marker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t')
}

func (r *reader) yaml(c chunk) {
	decoder := yaml.NewDecoder(bytes.NewReader(c.text))
	var roots []*yaml.Node
	for {
		n := &yaml.Node{}
		err := decoder.Decode(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, column, message, hint := explain(c.text, err)
			r.find(finding.Finding{
				Code: finding.YAMLSyntax, Severity: finding.Error, Position: finding.Position{File: r.name, Line: c.line + line, Column: column},
				Message: message, Hint: hint,
			})
			// Words before the mistake are part of it and no document of their own.
			roots = slices.DeleteFunc(roots, func(n *yaml.Node) bool { return len(n.Content) == 0 || n.Content[0].Kind == yaml.ScalarNode })
			break
		}
		roots = append(roots, n)
	}
	for _, n := range roots {
		r.root(n, c.line)
	}
}

// explain finds the place of a syntax error. The parser names the line where the enclosing construct began, if any, and no column.
func explain(text []byte, err error) (line, column int, message, hint string) {
	line, message = 1, bare(err)
	if _, scanErr := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); scanErr != nil {
		line = 1
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	line = firstBad(lines, min(line, len(lines)), message)
	content := string(bytes.TrimRight(lines[line-1], "\r\n"))
	indent := len(content) - len(strings.TrimLeft(content, " "))
	column = indent + 1
	switch {
	case strings.HasPrefix(strings.TrimLeft(content, " "), "\t"):
		return line, column, "a tab indents the line", "indent with spaces"
	case strings.Contains(message, "cannot start any token"):
		if i := strings.IndexAny(content, "@`%\t"); i >= 0 {
			column = i + 1
		}
		hint = "quote the value"
	case strings.Contains(message, "mapping values are not allowed"):
		first := strings.Index(content, ": ")
		if second := strings.Index(content[first+1:], ":"); first >= 0 && second >= 0 {
			column = first + 1 + second + 1
		}
		hint = "check the indentation, and quote a value that holds a colon"
	case strings.Contains(message, "did not find expected ','"):
		if i := strings.IndexAny(content, "[{"); i >= 0 {
			column = i + 1
		}
		hint = "a bracket that is opened must be closed"
	case strings.Contains(message, "unexpected end of stream"):
		if i := strings.IndexAny(content, `"'`); i >= 0 {
			column = i + 1
		}
		hint = "a quote that is opened must be closed"
	case strings.Contains(message, "did not find expected key"), strings.Contains(message, "could not find expected ':'"), strings.Contains(message, "'-' indicator"):
		hint = "check the indentation and the lines before"
	}
	return line, column, "the text is not YAML: " + message, hint
}

// bare is the parser's message without its line.
func bare(err error) string {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.HasPrefix(message, "line ") {
		_, message, _ = strings.Cut(message, ": ")
	}
	return message
}

// maxSearched bounds the text whose errors are looked for; in a longer one the parser's word has to do.
const maxSearched = 256 << 10

// firstBad is the first line, from the one the parser named, up to which the text has the same error.
func firstBad(lines [][]byte, from int, message string) int {
	fails := func(n int) bool {
		var node yaml.Node
		decoder := yaml.NewDecoder(bytes.NewReader(bytes.Join(lines[:n], nil)))
		for {
			if err := decoder.Decode(&node); err != nil {
				return !errors.Is(err, io.EOF) && bare(err) == message
			}
		}
	}
	size := 0
	for _, line := range lines {
		size += len(line)
	}
	// Every step of the search parses the text again.
	if size > maxSearched || fails(from) {
		return from
	}
	low, high := from, len(lines)
	for low+1 < high {
		if mid := (low + high) / 2; fails(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}
