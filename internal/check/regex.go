package check

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/meshctl/meshctl/internal/finding"
)

// maxRegex bounds what a regular expression is made of once its repetitions are written out. Proxies are told to take ten times as much,
// and count less than regexSize does.
const maxRegex = 10_000

// Regex judges a regular expression as proxies take it: RE2 over bytes, matching the whole value. It says what is wrong and what to do; both are
// empty when the proxies take it. A proxy that does not would refuse everything else that came along with it.
func Regex(text string) (fault, hint string) {
	if _, err := syntax.Parse(text, syntax.Perl); err != nil {
		hint = "the syntax is RE2"
		if strings.Contains(text, "(?=") || strings.Contains(text, "(?!") || strings.Contains(text, "(?<") {
			hint = "the syntax is RE2, which has no look-around"
		}
		return strings.TrimPrefix(err.Error(), "error parsing regexp: "), hint
	}
	if fault, hint := escapes(text); fault != "" {
		return fault, hint
	}
	re, err := syntax.Parse(whole(text), syntax.Perl)
	if err != nil {
		return strings.TrimPrefix(err.Error(), "error parsing regexp: ") + " in its UTF-8 bytes", "proxies compare bytes; keep to ASCII"
	}
	if size := regexSize(re); size > maxRegex {
		return fmt.Sprintf("it is too large: %d steps once its repetitions are written out", size), fmt.Sprintf("there may be %d; shorten it, or repeat less", maxRegex)
	}
	return "", ""
}

func (s *subject) regex(path, text string) {
	if fault, hint := Regex(text); fault != "" {
		s.error(finding.InvalidRegex, path, fault, hint)
	}
}

// whole is text as a proxy reads it, for Go: each byte a character, and all of it one group, for things are put before and after it.
func whole(text string) string { return "(?:" + latin1(text) + ")" }

// latin1 makes each byte of text a character.
func latin1(text string) string {
	var b strings.Builder
	for i := range len(text) {
		b.WriteRune(rune(text[i]))
	}
	return b.String()
}

// matchesRegex says yes where the expression cannot be read: that is found elsewhere.
func matchesRegex(text, value string) bool {
	re, err := regexp.Compile("^" + whole(text) + "$")
	return err != nil || re.MatchString(latin1(value))
}

// escapes finds what Go's syntax has and that of the proxies has not, in an expression that Go can read.
func escapes(text string) (fault, hint string) {
	for {
		i := strings.IndexByte(text, '\\')
		if i < 0 {
			return "", ""
		}
		kind := text[i+1]
		rest := text[i+2:]
		switch {
		case kind == 'Q':
			_, after, closed := strings.Cut(rest, `\E`)
			if !closed {
				return `\Q has no \E`, `write \E where the literal text ends`
			}
			rest = after
		case kind == 'x' && strings.HasPrefix(rest, "{"):
			digits, _, _ := strings.Cut(rest[1:], "}")
			if n, err := strconv.ParseUint(digits, 16, 32); err != nil || n > 0xff {
				return fmt.Sprintf(`\x{%s} is no byte, and proxies compare bytes`, digits), "write the character itself"
			}
		case kind >= '4' && kind <= '7' && len(rest) > 1 && isOctal(rest[0]) && isOctal(rest[1]):
			return fmt.Sprintf(`\%c%s is no byte, and proxies compare bytes`, kind, rest[:2]), "write the character itself"
		case (kind == 'p' || kind == 'P') && strings.HasPrefix(rest, "{"):
			name, _, _ := strings.Cut(rest[1:], "}")
			if !slices.Contains(categories(), strings.TrimPrefix(name, "^")) {
				return fmt.Sprintf(`\%c{%s} is no class that all proxies know`, kind, name), "the classes are " + strings.Join(categories(), ", ")
			}
		case kind == 'p' || kind == 'P':
			if !slices.Contains(categories(), rest[:1]) {
				return fmt.Sprintf(`\%c%s is no class that all proxies know`, kind, rest[:1]), "the classes are " + strings.Join(categories(), ", ")
			}
		}
		text = rest
	}
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// categories are the classes of characters that every RE2 knows. Scripts are not among them: what they tell apart is not in a byte.
func categories() []string {
	return []string{"Any", "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No",
		"P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs"}
}

// regexSize is the number of steps of the program that a proxy makes of re, or a little more. Nothing is compiled to know it.
func regexSize(re *syntax.Regexp) int {
	inside := 0
	for _, sub := range re.Sub {
		inside += regexSize(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return 2 * len(re.Rune)
		}
		return len(re.Rune)
	case syntax.OpCharClass:
		// Ranges are pairs. A proxy keeps of them what is in a byte.
		n := 1
		for i := 0; i < len(re.Rune) && re.Rune[i] <= 0xff; i += 2 {
			n++
		}
		return n
	case syntax.OpConcat:
		return inside
	case syntax.OpAlternate:
		return inside + len(re.Sub)
	case syntax.OpRepeat:
		if re.Min == re.Max {
			return re.Min * inside
		}
		return max(re.Min, re.Max, 1) * (inside + 1)
	default:
		return inside + 2
	}
}
