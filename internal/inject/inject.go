// Package inject puts the sidecar into a pod template and takes it out again; pure, and with a report of what was decided and why.
//
// In: an object of any kind as a tree of JSON values, the mesh configuration and the injection configuration. Out: a new tree and a Report for
// every object in it. The command line and the admission webhook call the same functions, so both decide and write the same.
//
// Two laws hold: injecting twice equals injecting once, and removing what was injected gives back the original, value for value.
package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/meshctl/meshctl/internal/meshconfig"
)

// The annotations read and written.
const (
	// AnnotationInject on a workload, or else on its pod template, says yes (y, yes, true, on) or no (anything else), whatever the policy.
	AnnotationInject = "sidecar.istio.io/inject"
	// AnnotationStatus records that a sidecar is in, of which version, and what is needed to take it out again.
	AnnotationStatus = "sidecar.istio.io/status"

	annotationCPU         = "sidecar.istio.io/proxyCPU"
	annotationCPULimit    = "sidecar.istio.io/proxyCPULimit"
	annotationMemory      = "sidecar.istio.io/proxyMemory"
	annotationMemoryLimit = "sidecar.istio.io/proxyMemoryLimit"

	annotationIncludeIPRanges      = "traffic.sidecar.istio.io/includeOutboundIPRanges"
	annotationExcludeIPRanges      = "traffic.sidecar.istio.io/excludeOutboundIPRanges"
	annotationExcludeInboundPorts  = "traffic.sidecar.istio.io/excludeInboundPorts"
	annotationExcludeOutboundPorts = "traffic.sidecar.istio.io/excludeOutboundPorts"
)

// Injector decides and injects for one mesh.
type Injector struct {
	Mesh   meshconfig.Mesh
	Config Config
	// MeshNamespace is the control plane's; nothing in it gets a sidecar.
	MeshNamespace string
	// Namespace is where objects go that name none.
	Namespace string
}

// Object returns obj with a sidecar in every workload that is to have one, an older sidecar being replaced, and a report of each object: one, or
// those of a List's items. obj itself is not changed.
func (in Injector) Object(obj map[string]any) (map[string]any, []Report) {
	return each(obj, in.one)
}

// Uninject returns obj as it was before Object.
func Uninject(obj map[string]any) (map[string]any, []Report) {
	return each(obj, func(obj map[string]any) (map[string]any, Report) {
		r := about(obj)
		path, ok := templatePath(obj)
		if !ok {
			return obj, r.because(NotAWorkload, "")
		}
		if !isInjected(obj, path) {
			return obj, r.because(NotInjected, "")
		}
		r.Changed = true
		return without(obj, path), r.because(Removed, "")
	})
}

// each applies fn to obj, or to the items of obj when it is a list.
func each(obj map[string]any, fn func(map[string]any) (map[string]any, Report)) (map[string]any, []Report) {
	items, ok := obj["items"].([]any)
	if kind, _ := obj["kind"].(string); !ok || !strings.HasSuffix(kind, "List") {
		out, report := fn(obj)
		return out, []Report{report}
	}
	var reports []Report
	list := slices.Clone(items)
	for i, item := range items {
		m, ok := item.(map[string]any)
		if !ok {
			continue
		}
		out, rs := each(m, fn)
		list[i], reports = out, append(reports, rs...)
	}
	out := maps.Clone(obj)
	out["items"] = list
	return out, reports
}

func (in Injector) one(obj map[string]any) (map[string]any, Report) {
	r := about(obj)
	if r.Namespace == "" {
		r.Namespace = in.Namespace
	}
	path, ok := templatePath(obj)
	if !ok {
		return obj, r.because(NotAWorkload, "")
	}
	if why := malformed(obj, path); why != "" {
		return obj, r.because(NoPodTemplate, why)
	}
	if reason, detail, yes := in.decide(obj, path, r.Namespace); !yes {
		return obj, r.because(reason, detail)
	}

	reason := Injected
	if isInjected(obj, path) {
		reason = Replaced
	}
	out := without(obj, path)
	template := dig(out, path)
	spec := template["spec"].(map[string]any)

	side, err := in.sidecar(template, annotations(obj))
	if err != nil {
		return obj, r.because(Invalid, err.Error())
	}
	if taken := side.conflict(spec); taken != "" {
		return obj, r.because(NameConflict, "the pod has "+taken+" of its own")
	}

	var rec record
	annotate := rec.mapping(template, "metadata", "metadata")
	annotate = rec.mapping(annotate, "annotations", "metadata.annotations")
	rec.InitContainers = rec.insert(spec, "initContainers", side.initFirst, side.initLast)
	rec.Containers = rec.insert(spec, "containers", nil, side.containers)
	rec.Volumes = rec.insert(spec, "volumes", nil, side.volumes)
	annotate[AnnotationStatus] = rec.status(in.Config.Params.Version)

	if len(path) > 0 {
		var rec record
		annotate := rec.mapping(out, "metadata", "metadata")
		annotate = rec.mapping(annotate, "annotations", "metadata.annotations")
		annotate[AnnotationStatus] = rec.status(in.Config.Params.Version)
	}
	r.Changed = true
	return out, r.because(reason, "")
}

// templatePath is where obj keeps its pod template: a pod is its own. The kind alone decides, so every API version of a workload counts.
func templatePath(obj map[string]any) ([]string, bool) {
	kind, _ := obj["kind"].(string)
	switch kind {
	case "Deployment", "ReplicaSet", "ReplicationController", "DaemonSet", "StatefulSet", "Job":
		return []string{"spec", "template"}, true
	case "CronJob":
		return []string{"spec", "jobTemplate", "spec", "template"}, true
	case "PodTemplate":
		return []string{"template"}, true
	case "Pod":
		return nil, true
	default:
		return nil, false
	}
}

// dig follows path; nil when it leads nowhere.
func dig(obj map[string]any, path []string) map[string]any {
	for _, key := range path {
		obj, _ = obj[key].(map[string]any)
	}
	return obj
}

// malformed says why nothing can be injected into obj's pod template, or nothing.
func malformed(obj map[string]any, path []string) string {
	template := dig(obj, path)
	spec, ok := template["spec"].(map[string]any)
	if !ok {
		return strings.Join(append(path, "spec"), ".") + " is missing"
	}
	if list, ok := spec["containers"].([]any); !ok || len(list) == 0 {
		return strings.Join(append(path, "spec", "containers"), ".") + " is missing or empty"
	}
	for _, key := range []string{"initContainers", "volumes"} {
		if _, ok := spec[key].([]any); !ok && spec[key] != nil {
			return strings.Join(append(path, "spec", key), ".") + " is not a list"
		}
	}
	for _, of := range []map[string]any{obj, template} {
		meta, ok := of["metadata"].(map[string]any)
		if !ok && of["metadata"] != nil {
			return "metadata is not a mapping"
		}
		if _, ok := meta["annotations"].(map[string]any); !ok && meta["annotations"] != nil {
			return "metadata.annotations is not a mapping of strings"
		}
	}
	return ""
}

// annotations of an object or template; values that are not strings (an unquoted true) count as what they look like.
func annotations(of map[string]any) map[string]string {
	meta, _ := of["metadata"].(map[string]any)
	raw, _ := meta["annotations"].(map[string]any)
	out := make(map[string]string, len(raw))
	for k, v := range raw {
		if v != nil {
			out[k] = fmt.Sprint(v)
		}
	}
	return out
}

func (in Injector) decide(obj map[string]any, path []string, namespace string) (Reason, string, bool) {
	if namespace == "kube-system" || namespace == "kube-public" || namespace == "istio-system" || namespace != "" && namespace == in.MeshNamespace {
		return SystemNamespace, "namespace " + namespace, false
	}
	c := in.Config
	if slices.Contains(c.ExcludeNamespaces, namespace) {
		return ExcludedNamespace, "namespace " + namespace, false
	}
	if !slices.Contains(c.Namespaces, "") && !slices.Contains(c.Namespaces, namespace) {
		return NamespaceNotIncluded, "namespace " + namespace, false
	}
	template := dig(obj, path)
	answer, said := annotations(obj)[AnnotationInject]
	if !said {
		answer, said = annotations(template)[AnnotationInject]
	}
	if said {
		if !slices.Contains([]string{"y", "yes", "true", "on"}, strings.ToLower(answer)) {
			return Annotation, fmt.Sprintf("%s: %q", AnnotationInject, answer), false
		}
	} else if c.Policy != Enabled {
		return PolicyDisabled, "", false
	}
	spec := template["spec"].(map[string]any)
	if spec["hostNetwork"] == true {
		return HostNetwork, "", false
	}
	if os, _ := spec["os"].(map[string]any); os["name"] == "windows" {
		return Windows, "", false
	}
	return "", "", true
}

// record is what removal needs to know: the names that were added, and which fields were absent or null before.
type record struct {
	InitContainers []string `json:"initContainers,omitempty"`
	Containers     []string `json:"containers,omitempty"`
	Volumes        []string `json:"volumes,omitempty"`
	Made           []string `json:"made,omitempty"`
	Null           []string `json:"null,omitempty"`
}

const statusPrefix = "injected-version-"

// status is the annotation's text. Its beginning is 0.2's whole text; JSON without a blank follows, so the last blank separates the two.
func (rec record) status(version string) string {
	text, err := json.Marshal(rec)
	if err != nil {
		panic(err) // strings always marshal
	}
	return statusPrefix + version + " " + string(text)
}

// recordOf reads a status. An older mesh wrote only the prefix and the version; what it added has known names.
func recordOf(status string) record {
	var rec record
	if i := strings.LastIndex(status, " {"); i >= 0 && json.Unmarshal([]byte(status[i+1:]), &rec) == nil {
		return rec
	}
	return record{
		InitContainers: []string{nameInit, nameCoreDump},
		Containers:     []string{nameProxy},
		Volumes:        []string{volumeEnvoy, "istio-certs"},
	}
}

// mapping returns the mapping under key of parent, made when there is none.
func (rec *record) mapping(parent map[string]any, key, field string) map[string]any {
	if m, ok := parent[key].(map[string]any); ok {
		return m
	}
	rec.note(parent, key, field)
	m := map[string]any{}
	parent[key] = m
	return m
}

func (rec *record) note(parent map[string]any, key, field string) {
	if _, ok := parent[key]; ok {
		rec.Null = append(rec.Null, field)
	} else {
		rec.Made = append(rec.Made, field)
	}
}

// insert puts items around the list under key of spec and returns their names.
func (rec *record) insert(spec map[string]any, key string, first, last []map[string]any) []string {
	if len(first)+len(last) == 0 {
		return nil
	}
	list, ok := spec[key].([]any)
	if !ok {
		rec.note(spec, key, "spec."+key)
	}
	var names []string
	out := make([]any, 0, len(first)+len(list)+len(last))
	for _, item := range first {
		out, names = append(out, item), append(names, item["name"].(string))
	}
	out = append(out, list...)
	for _, item := range last {
		out, names = append(out, item), append(names, item["name"].(string))
	}
	spec[key] = out
	return names
}

// restore makes the emptied field under key of parent what it was before.
func (rec *record) restore(parent map[string]any, key, field string) {
	switch {
	case slices.Contains(rec.Made, field):
		delete(parent, key)
	case slices.Contains(rec.Null, field):
		parent[key] = nil
	}
}

func isInjected(obj map[string]any, path []string) bool {
	_, template := annotations(dig(obj, path))[AnnotationStatus]
	_, object := annotations(obj)[AnnotationStatus]
	return template || object
}

// without is a copy of obj without the sidecar that its status annotations record.
func without(obj map[string]any, path []string) map[string]any {
	out := clone(obj).(map[string]any)
	template := dig(out, path)
	if status, ok := annotations(template)[AnnotationStatus]; ok {
		rec := recordOf(status)
		if spec, ok := template["spec"].(map[string]any); ok {
			for key, names := range map[string][]string{"initContainers": rec.InitContainers, "containers": rec.Containers, "volumes": rec.Volumes} {
				list, ok := spec[key].([]any)
				if !ok {
					continue
				}
				kept := slices.DeleteFunc(list, func(item any) bool {
					m, _ := item.(map[string]any)
					name, _ := m["name"].(string)
					return name != "" && slices.Contains(names, name)
				})
				spec[key] = kept
				if len(kept) == 0 {
					rec.restore(spec, key, "spec."+key)
				}
			}
		}
		unmark(template, rec)
	}
	if status, ok := annotations(out)[AnnotationStatus]; ok {
		unmark(out, recordOf(status))
	}
	return out
}

// unmark removes the status annotation, and the mappings that were made for it.
func unmark(of map[string]any, rec record) {
	meta := of["metadata"].(map[string]any)
	marks := meta["annotations"].(map[string]any)
	delete(marks, AnnotationStatus)
	if len(marks) == 0 {
		rec.restore(meta, "annotations", "metadata.annotations")
	}
	if len(meta) == 0 {
		rec.restore(of, "metadata", "metadata")
	}
}

// clone copies mappings and lists; other values are never changed and are shared.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = clone(e)
		}
		return out
	case []any:
		if v == nil {
			return v
		}
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = clone(e)
		}
		return out
	default:
		return v
	}
}
