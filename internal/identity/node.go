package identity

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/meshctl/meshctl/internal/model"
)

// Node is what a proxy says of itself: type~ip~pod.namespace~domain.
type Node struct {
	Type      model.ProxyType
	Address   string
	Pod       string
	Namespace string
}

// ParseNode reads a node id.
func ParseNode(id string) (Node, error) {
	const form = "type~ip~pod.namespace~namespace.svc.domain"
	parts := strings.Split(id, "~")
	if len(parts) != 4 || len(id) > 1024 {
		return Node{}, fmt.Errorf("node id %.80q is not of the form %s", id, form)
	}
	n := Node{Type: model.ProxyType(parts[0]), Address: parts[1]}
	switch n.Type {
	case model.Sidecar, model.Ingress, model.Egress:
	default:
		return Node{}, fmt.Errorf("node id %.80q: type %q is none of sidecar, ingress, egress", id, parts[0])
	}
	if n.Address != "" {
		if _, err := netip.ParseAddr(n.Address); err != nil {
			return Node{}, fmt.Errorf("node id %.80q: %q is not an IP address", id, n.Address)
		}
	}
	dot := strings.LastIndexByte(parts[2], '.') // a pod's name may have dots, a namespace's has none
	if dot <= 0 || dot == len(parts[2])-1 {
		return Node{}, fmt.Errorf("node id %.80q: %q is not pod.namespace", id, parts[2])
	}
	n.Pod, n.Namespace = parts[2][:dot], parts[2][dot+1:]
	return n, nil
}
