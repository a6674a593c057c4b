package model

import (
	"net/netip"
	"slices"
	"time"
)

// Addresses are conditions on the connection a request came in: each list that is not empty must have a subnet
// that holds the address.
type Addresses struct {
	Sources, Destinations []netip.Prefix
}

// Delay of requests.
type Delay struct {
	Percent float64
	// Fixed is the delay, or Mean the mean of delays that are distributed exponentially; one of them is set.
	Fixed, Mean time.Duration
	// Header in which a request may say its own delay, in milliseconds; empty for none.
	Header string
}

// Abort of requests with a status.
type Abort struct {
	Percent float64
	// HTTPStatus, or GRPCStatus where IsGRPC.
	HTTPStatus uint32
	GRPCStatus uint32
	IsGRPC     bool
	// Header in which a request may say its own status, of the same kind; empty for none.
	Header string
}

// CORS is what browsers are told about pages of other origins.
type CORS struct {
	// AllowOrigins are origins, or * for all; the others names, or * for all.
	AllowOrigins, AllowMethods, AllowHeaders, ExposeHeaders []string
	// MaxAge in whole seconds; nil when nothing is said.
	MaxAge      *time.Duration
	Credentials bool
}

// Header is a name with a value.
type Header struct {
	Name, Value string
}

// Targets are all versions that the rule sends to, copies included.
func (r *Rule) Targets() []Target {
	if r.Mirror == nil {
		return r.Routes
	}
	return append(slices.Clip(r.Routes), *r.Mirror)
}
