package check_test

import (
	"strings"
	"testing"

	"github.com/meshctl/meshctl/internal/check"
)

func TestRegex(t *testing.T) {
	for name, tc := range map[string]struct{ text, fault string }{
		"an ordinary expression for a cookie":            {`^(.*?;)?(session=[A-Za-z0-9_-]{64})(;.*)?$`, ""},
		"a byte by its number":                           {`\x{ff}\xff\377\123`, ""},
		"a category of characters":                       {`\pL\PN\p{Lu}\P{Zs}\p{^L}\p{Any}`, ""},
		"many repetitions of a category":                 {`\pL{500}`, ""},
		"literal text that ends":                         {`\Qa(b\E\x41\Q\p{x}\x{2603}\E`, ""},
		"a character that is more than a byte":           {`☃é`, ""},
		"an escaped backslash begins no escape":          {`\\x{2603}`, "invalid"},
		"an escaped backslash before a letter":           {`\\p\\Q`, ""},
		"a character by a number that is no byte":        {`\x{2603}`, `\x{2603} is no byte`},
		"the same in a class":                            {`[a\x{100}]`, `\x{100} is no byte`},
		"the same after literal text":                    {`\Qa\E\x{100}`, `\x{100} is no byte`},
		"an octal number that is no byte":                {`\777`, `\777 is no byte`},
		"a script":                                       {`\p{Greek}`, `\p{Greek} is no class`},
		"a category by its long name":                    {`a\P{Letter}`, `\P{Letter} is no class`},
		"a category in lower case":                       {`\p{lu}`, `\p{lu} is no class`},
		"literal text that does not end":                 {`a\Qb`, `\Q has no \E`},
		"a range that is upside down in bytes":           {`[\xf0-☃]`, "in its UTF-8 bytes"},
		"many repetitions":                               {`((a{100}b{10}){9})\pL{900}`, ""},
		"look-around":                                    {`(?=a)`, "invalid or unsupported Perl syntax"},
		"repetitions that grow large":                    {strings.Repeat("a{1000}", 11), "too large"},
		"repetitions within repetitions that grow large": {`(?:(?:[acegik]|bd?){30}){33}`, "too large"},
		"a long text":                                    {strings.Repeat("a", 4096), ""},
		"a very long text":                               {strings.Repeat("a", 1<<20), "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			fault, hint := check.Regex(tc.text)
			if (tc.fault == "") != (fault == "") || !strings.Contains(fault, tc.fault) {
				t.Errorf("%.100q: got %q, want %q", tc.text, fault, tc.fault)
			}
			if (fault == "") != (hint == "") {
				t.Errorf("fault %q has the hint %q", fault, hint)
			}
		})
	}
}
