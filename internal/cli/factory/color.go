package factory

import (
	"io"

	"github.com/fatih/color"
)

// The colours in use: one for trouble, one for doubt, one for emphasis.
const (
	Red    = color.FgRed
	Yellow = color.FgYellow
	Bold   = color.Bold
)

// Paint colours text for w, when --color and w allow it. The decision is made for each stream: one may be a terminal and the other a file.
func (f *Factory) Paint(w io.Writer, attribute color.Attribute, text string) string {
	if !f.colored(w) {
		return text
	}
	c := color.New(attribute)
	c.EnableColor()
	return c.Sprint(text)
}

func (f *Factory) colored(w io.Writer) bool {
	mode := "auto"
	if f.Color != nil {
		mode = *f.Color
	}
	switch mode {
	case "always":
		return true
	case "never":
		return false
	default:
		return IsTerminal(w) && f.env("NO_COLOR") == "" && f.env("TERM") != "dumb"
	}
}

func (f *Factory) env(name string) string {
	if f.Getenv == nil {
		return ""
	}
	return f.Getenv(name)
}
