package identity

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// leeway is how far the clock that issued a token may be ahead of this one.
const leeway = time.Minute

// claims are what a token says of itself.
type claims struct {
	Audience audience `json:"aud"`
	Expires  float64  `json:"exp"`
}

// audience is one or several.
type audience []string

func (a *audience) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '[' {
		return json.Unmarshal(text, (*[]string)(a))
	}
	*a = make([]string, 1)
	return json.Unmarshal(text, &(*a)[0])
}

// plausible refuses what the API server need not be asked about. Nothing that the token says is verified here, so nothing is granted for it.
func plausible(token string, now time.Time) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%w: not a JSON web token", ErrInvalidToken)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("%w: not a JSON web token", ErrInvalidToken)
	}
	var c claims
	if json.Unmarshal(text, &c) != nil {
		return fmt.Errorf("%w: not a JSON web token", ErrInvalidToken)
	}
	if !slices.Contains(c.Audience, Audience) {
		return fmt.Errorf("%w: not issued for audience %s", ErrInvalidToken, Audience)
	}
	if c.Expires != 0 && float64(now.Add(-leeway).Unix()) > c.Expires {
		return fmt.Errorf("%w: expired", ErrInvalidToken)
	}
	return nil
}
