package model

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"time"
)

// IngressTLS is how gateways answer to a server name.
type IngressTLS struct {
	// Ref names the Ingress.
	Ref Ref
	// Host is a server name in lower case, *.suffix, or * for every name that no other says, and for none.
	Host string
	// Certificate is nil when the Ingress's Secret cannot be used: connections for the host are closed.
	Certificate *Certificate
}

// Certificate is a server's certificate with its key.
type Certificate struct {
	// Ref names the Secret it is from.
	Ref Ref
	// Chain is PEM, the server's own certificate first.
	Chain []byte
	Key   PrivateKey
	// NotBefore and NotAfter are when the server's own certificate is valid.
	NotBefore, NotAfter time.Time
}

// PrivateKey is PEM that prints as redacted wherever it turns up.
type PrivateKey []byte

const redacted = "[redacted]"

// Format implements fmt.Formatter for every verb.
func (PrivateKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// String implements fmt.Stringer.
func (PrivateKey) String() string { return redacted }

// LogValue implements slog.LogValuer.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (PrivateKey) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }
