package factory

import (
	"fmt"
	"io"
	"strings"

	"github.com/meshctl/meshctl/internal/finding"
)

// WriteFindings writes findings to w, one a line, in a stable order.
func (f *Factory) WriteFindings(w io.Writer, fs []finding.Finding) {
	finding.Sort(fs)
	for _, d := range fs {
		line, word := d.String(), d.Severity.String()
		switch d.Severity {
		case finding.Error:
			line = strings.Replace(line, word, f.Paint(w, Red, word), 1)
		case finding.Warning:
			line = strings.Replace(line, word, f.Paint(w, Yellow, word), 1)
		}
		fmt.Fprintln(w, line)
	}
}

// Count is the number of findings of each severity, in words: "2 errors, 1 warning". It is "no findings" when there is none.
func Count(fs []finding.Finding) string {
	var parts []string
	for _, s := range []finding.Severity{finding.Error, finding.Warning, finding.Info} {
		n := 0
		for _, d := range fs {
			if d.Severity == s {
				n++
			}
		}
		switch {
		case n == 1:
			parts = append(parts, "1 "+s.String())
		case n > 1 && s == finding.Info:
			parts = append(parts, fmt.Sprintf("%d infos", n))
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n, s))
		}
	}
	if len(parts) == 0 {
		return "no findings"
	}
	return strings.Join(parts, ", ")
}
