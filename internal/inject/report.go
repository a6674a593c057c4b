package inject

import "strings"

// Reason is a stable code for what was decided about an object; scripts and metrics rely on it.
type Reason string

// The reasons.
const (
	Injected             Reason = "injected"               // a sidecar was added
	Replaced             Reason = "replaced"               // an older sidecar made way for this one
	Removed              Reason = "removed"                // the sidecar was taken out
	NotInjected          Reason = "not-injected"           // there was no sidecar to take out
	NotAWorkload         Reason = "not-a-workload"         // the kind has no pods
	NoPodTemplate        Reason = "no-pod-template"        // a workload whose pod template is missing or of the wrong shape
	SystemNamespace      Reason = "system-namespace"       // Kubernetes' and the mesh's own namespaces get none
	ExcludedNamespace    Reason = "excluded-namespace"     // the injection configuration excludes it
	NamespaceNotIncluded Reason = "namespace-not-included" // the injection configuration lists others only
	Annotation           Reason = "annotation"             // the workload says no
	PolicyDisabled       Reason = "policy-disabled"        // the workload says nothing and the policy says no
	HostNetwork          Reason = "host-network"           // capture would take the node's traffic
	Windows              Reason = "windows"                // there is no sidecar for Windows
	NameConflict         Reason = "name-conflict"          // the pod uses a name that the sidecar needs
	Invalid              Reason = "invalid"                // an annotation that sets up the sidecar cannot be followed
)

// sentences say each reason to a person.
func (r Reason) sentence() string {
	switch r {
	case Injected:
		return "sidecar added"
	case Replaced:
		return "sidecar replaced"
	case Removed:
		return "sidecar removed"
	case NotInjected:
		return "has no sidecar"
	case NotAWorkload:
		return "left as it is: not a workload"
	case NoPodTemplate:
		return "left as it is: no usable pod template"
	case SystemNamespace:
		return "no sidecar: a system namespace"
	case ExcludedNamespace:
		return "no sidecar: an excluded namespace"
	case NamespaceNotIncluded:
		return "no sidecar: not an included namespace"
	case Annotation:
		return "no sidecar: its annotation says so"
	case PolicyDisabled:
		return "no sidecar: the policy is disabled and no annotation asks for one"
	case HostNetwork:
		return "no sidecar: it uses the node's network"
	case Windows:
		return "no sidecar: it runs on Windows"
	case NameConflict:
		return "refused: a name the sidecar needs is taken"
	case Invalid:
		return "refused: an annotation cannot be followed"
	default:
		return string(r)
	}
}

// Report is what was decided about one object.
type Report struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name,omitempty"`
	// Changed says whether the object was.
	Changed bool   `json:"changed"`
	Reason  Reason `json:"reason"`
	Detail  string `json:"detail,omitempty"`
}

// Refused says whether the object was to have a sidecar and could not.
func (r Report) Refused() bool { return r.Reason == NameConflict || r.Reason == Invalid }

// String is the report in one line.
func (r Report) String() string {
	kind := strings.ToLower(r.Kind)
	if kind == "" {
		kind = "object"
	}
	s := kind + "/" + r.Name + ": " + r.Reason.sentence()
	if r.Detail != "" {
		s += " (" + r.Detail + ")"
	}
	return s
}

func (r Report) because(reason Reason, detail string) Report {
	r.Reason, r.Detail = reason, detail
	return r
}

func about(obj map[string]any) Report {
	var r Report
	r.APIVersion, _ = obj["apiVersion"].(string)
	r.Kind, _ = obj["kind"].(string)
	meta, _ := obj["metadata"].(map[string]any)
	r.Namespace, _ = meta["namespace"].(string)
	r.Name, _ = meta["name"].(string)
	if r.Name == "" {
		r.Name, _ = meta["generateName"].(string)
	}
	return r
}
