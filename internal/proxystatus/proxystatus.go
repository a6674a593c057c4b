// Package proxystatus is what the control plane knows of each connected proxy, as it travels from Pilot to the command line.
package proxystatus

import "time"

// State of one resource type at one proxy.
type State string

// The states.
const (
	Synced  State = "SYNCED"   // the last thing sent was acknowledged
	Stale   State = "STALE"    // sent, not acknowledged yet; Since says since when
	Error   State = "ERROR"    // the last thing sent was rejected; Message says why
	NotSent State = "NOT SENT" // nothing was sent, nothing asked for
)

// Type is the state of one resource type (cds, eds, lds, rds, sds) at one proxy.
type Type struct {
	State State `json:"state"`
	// Since is when this state began.
	Since time.Time `json:"since"`
	// Resources counts what the proxy was sent and holds.
	Resources int `json:"resources"`
	// Message is the proxy's own text of its last rejection, kept until a later acknowledgement of the same type.
	Message string `json:"message,omitempty"`
	// Rejected is when that rejection came.
	Rejected *time.Time `json:"rejected,omitempty"`
}

// Proxy is one connected proxy.
type Proxy struct {
	// Name and Namespace are the pod's, taken from the verified token.
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	// Role is sidecar, ingress or egress.
	Role string `json:"role"`
	// Pilot is the control-plane instance serving it.
	Pilot     string    `json:"pilot"`
	Version   string    `json:"version,omitempty"`
	Connected time.Time `json:"connected"`
	// Behind says that the proxy has not answered all of the newest configuration.
	Behind bool `json:"behind,omitempty"`
	// Types by short name: cds, eds, lds, rds.
	Types map[string]Type `json:"types"`
}

// List is the answer of Pilot's /debug/proxies.
type List struct {
	Pilot   string  `json:"pilot"`
	Proxies []Proxy `json:"proxies"`
}
