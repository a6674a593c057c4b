package finding

import (
	"strconv"
	"strings"
)

// Child is the path of the field or map entry key below path, as in spec.route or metadata.labels["app.kubernetes.io/name"].
func Child(path, key string) string {
	if !plain(key) {
		return path + "[" + strconv.Quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// Item is the path of the i-th entry, counted from 0, of the list at path.
func Item(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}

// plain keys need no quotes in a path. A key of digits alone would read as an index.
func plain(key string) bool {
	letters := false
	for _, r := range key {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '_', r == '-', r == '$':
			letters = true
		case r < '0' || r > '9':
			return false
		}
	}
	return letters
}

// Step is one element of a path: a Key, or an Index when Key is empty.
type Step struct {
	Key   string
	Index int
}

// Steps takes a path made by Child and Item apart. What it cannot read ends the path.
func Steps(path string) []Step {
	var steps []Step
	for path != "" {
		switch {
		case path[0] == '.':
			path = path[1:]
		case strings.HasPrefix(path, `["`):
			quoted, err := strconv.QuotedPrefix(path[1:])
			if err != nil {
				return steps
			}
			key, err := strconv.Unquote(quoted)
			rest, closed := strings.CutPrefix(path[1+len(quoted):], "]")
			if err != nil || !closed {
				return steps
			}
			steps = append(steps, Step{Key: key})
			path = rest
		case path[0] == '[':
			number, rest, closed := strings.Cut(path[1:], "]")
			i, err := strconv.Atoi(number)
			if err != nil || !closed {
				return steps
			}
			steps = append(steps, Step{Index: i})
			path = rest
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			steps = append(steps, Step{Key: path[:end]})
			path = path[end:]
		}
	}
	return steps
}
