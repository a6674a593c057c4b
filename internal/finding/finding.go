// Package finding is one diagnostic: code, severity, object, field path, file position, message, hint.
//
// Everything that judges user input (manifest, check, ingest) returns findings instead of errors, all of them, and
// everything that shows them (the command line, admission, object status) renders from the same value.
package finding

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity orders findings: an Error refuses the object, a Warning does not.
type Severity int

// The severities, from mild to grave.
const (
	Info Severity = iota
	Warning
	Error
)

func (s Severity) String() string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	default:
		return "info"
	}
}

// MarshalText writes the severity as its name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Object names what the finding is about; empty fields are unknown.
type Object struct {
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

func (o Object) String() string {
	if o.Kind == "" && o.Name == "" {
		return ""
	}
	name := o.Name
	if o.Namespace != "" {
		name = o.Namespace + "/" + name
	}
	return strings.TrimSpace(o.Kind + " " + name)
}

// Position is a place in a file; Line and Column count from 1, 0 is unknown.
type Position struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

func (p Position) String() string {
	switch {
	case p.File == "":
		return ""
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
}

// Finding is one diagnostic.
type Finding struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	Object   Object   `json:"object,omitzero"`
	// Field is the path inside the object, as in spec.route[0].weight.
	Field    string   `json:"field,omitempty"`
	Position Position `json:"position,omitzero"`
	Message  string   `json:"message"`
	// Hint says what to do about it.
	Hint string `json:"hint,omitempty"`
}

// String renders the finding on one line: position, severity, code, object, field, message, and the hint in parentheses.
func (f Finding) String() string {
	var b strings.Builder
	if p := f.Position.String(); p != "" {
		b.WriteString(p + ": ")
	}
	fmt.Fprintf(&b, "%s %s: ", f.Severity, f.Code)
	if o := f.Object.String(); o != "" {
		b.WriteString(o + ": ")
	}
	if f.Field != "" {
		b.WriteString(f.Field + ": ")
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		b.WriteString(" (" + f.Hint + ")")
	}
	return b.String()
}

// Max is the gravest severity among fs, and false when there is none.
func Max(fs []Finding) (Severity, bool) {
	if len(fs) == 0 {
		return Info, false
	}
	return slices.MaxFunc(fs, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) }).Severity, true
}

// HasErrors says whether any of fs refuses its object.
func HasErrors(fs []Finding) bool {
	s, ok := Max(fs)
	return ok && s == Error
}

// Sort orders findings by position, then object, field and code, so that output is stable.
func Sort(fs []Finding) {
	slices.SortStableFunc(fs, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(a.Position.File, b.Position.File),
			cmp.Compare(a.Position.Line, b.Position.Line),
			cmp.Compare(a.Position.Column, b.Position.Column),
			cmp.Compare(a.Object.Kind, b.Object.Kind),
			cmp.Compare(a.Object.Namespace, b.Object.Namespace),
			cmp.Compare(a.Object.Name, b.Object.Name),
			cmp.Compare(a.Field, b.Field),
			cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Message, b.Message),
		)
	})
}
