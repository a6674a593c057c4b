package factory

import (
	"bytes"
	"testing"
)

func TestTable(t *testing.T) {
	for name, tc := range map[string]struct {
		header []string
		rows   [][]string
		want   string
	}{
		"columns are three spaces apart and lines end without padding": {
			[]string{"NAME", "last_ack", "v1.2"}, [][]string{{"a", "b", ""}, {"longer-name", "x", "y"}},
			"NAME          last_ack   v1.2\na             b\nlonger-name   x          y\n",
		},
		"without a header only rows are written": {
			nil, [][]string{{"a", "b"}}, "a   b\n",
		},
		"a long cell is neither cut nor wrapped": {
			[]string{"A"}, [][]string{{"word word word word word word word word word word word word word word word word word word word word"}},
			"A\nword word word word word word word word word word word word word word word word word word word word\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Table(&out, tc.header, tc.rows); err != nil {
				t.Fatal(err)
			}
			if out.String() != tc.want {
				t.Errorf("got\n%q\nwant\n%q", out.String(), tc.want)
			}
		})
	}
}
