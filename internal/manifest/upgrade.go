package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Upgrade rewrites obj, an object of an API version that Kubernetes no longer serves, in place to its successor with the same meaning. It says
// which versions those are, and false when there is nothing to do. Lists are not entered.
func Upgrade(obj map[string]any) (from, to string, changed bool) {
	from, to, _, changed = upgrade(obj)
	return from, to, changed
}

// succession is what became of a kind's retired versions.
type succession struct {
	kind string
	from []string
	to   string
	// rewrite changes what is not the same in the new version and says in words what had to go; nil when the shapes are equal.
	rewrite func(obj map[string]any) (notes []string)
}

func successions() []succession {
	workload := []string{"extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"}
	rbac := []string{"rbac.authorization.k8s.io/v1alpha1", "rbac.authorization.k8s.io/v1beta1"}
	return []succession{
		{"Deployment", workload, "apps/v1", upgradeWorkload},
		{"DaemonSet", workload, "apps/v1", upgradeWorkload},
		{"ReplicaSet", workload, "apps/v1", upgradeWorkload},
		{"StatefulSet", workload, "apps/v1", upgradeWorkload},
		{"Ingress", []string{"extensions/v1beta1", "networking.k8s.io/v1beta1"}, "networking.k8s.io/v1", upgradeIngress},
		{"IngressClass", []string{"networking.k8s.io/v1beta1"}, "networking.k8s.io/v1", nil},
		{"NetworkPolicy", []string{"extensions/v1beta1"}, "networking.k8s.io/v1", nil},
		{"CronJob", []string{"batch/v1beta1", "batch/v2alpha1"}, "batch/v1", nil},
		{"PodDisruptionBudget", []string{"policy/v1beta1"}, "policy/v1", upgradeBudget},
		{"Role", rbac, "rbac.authorization.k8s.io/v1", nil},
		{"ClusterRole", rbac, "rbac.authorization.k8s.io/v1", nil},
		{"RoleBinding", rbac, "rbac.authorization.k8s.io/v1", upgradeBinding},
		{"ClusterRoleBinding", rbac, "rbac.authorization.k8s.io/v1", upgradeBinding},
		{"HorizontalPodAutoscaler", []string{"autoscaling/v2beta1", "autoscaling/v2beta2"}, "autoscaling/v2", upgradeAutoscaler},
		{"PriorityClass", []string{"scheduling.k8s.io/v1alpha1", "scheduling.k8s.io/v1beta1"}, "scheduling.k8s.io/v1", nil},
		{"StorageClass", []string{"storage.k8s.io/v1beta1"}, "storage.k8s.io/v1", nil},
		{"RuntimeClass", []string{"node.k8s.io/v1beta1"}, "node.k8s.io/v1", nil},
		{"Lease", []string{"coordination.k8s.io/v1beta1"}, "coordination.k8s.io/v1", nil},
	}
}

func upgrade(obj map[string]any) (from, to string, notes []string, changed bool) {
	from, _ = obj["apiVersion"].(string)
	kind, _ := obj["kind"].(string)
	if !strings.Contains(from, "alpha") && !strings.Contains(from, "beta") {
		return "", "", nil, false
	}
	for _, s := range successions() {
		if s.kind != kind || !slices.Contains(s.from, from) {
			continue
		}
		if s.rewrite != nil {
			notes = s.rewrite(obj)
		}
		obj["apiVersion"] = s.to
		return from, s.to, notes, true
	}
	return "", "", nil, false
}

// mapAt walks path through nested mappings; nil where one is missing or something else.
func mapAt(obj map[string]any, path ...string) map[string]any {
	for _, p := range path {
		obj, _ = obj[p].(map[string]any)
	}
	return obj
}

// each calls f with every mapping in the list v.
func each(v any, f func(map[string]any)) {
	list, _ := v.([]any)
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			f(m)
		}
	}
}

// move renames a key, if it is there.
func move(m map[string]any, from, to string) {
	if v, ok := m[from]; ok {
		delete(m, from)
		m[to] = v
	}
}

func upgradeWorkload(obj map[string]any) (notes []string) {
	spec := mapAt(obj, "spec")
	if spec == nil {
		return nil
	}
	// The old versions took the template's labels where the selector was left out; the new one requires it.
	if sel, ok := spec["selector"]; !ok || sel == nil || isEmptyMap(sel) {
		if labels := mapAt(spec, "template", "metadata", "labels"); len(labels) > 0 {
			spec["selector"] = map[string]any{"matchLabels": maps.Clone(labels)}
			notes = append(notes, "selector taken from the template's labels")
		}
	}
	for _, gone := range []string{"rollbackTo", "templateGeneration"} {
		if _, ok := spec[gone]; ok {
			delete(spec, gone)
			notes = append(notes, fmt.Sprintf("spec.%s dropped", gone))
		}
	}
	return notes
}

func isEmptyMap(v any) bool {
	m, ok := v.(map[string]any)
	return ok && len(m) == 0
}

func upgradeIngress(obj map[string]any) []string {
	spec := mapAt(obj, "spec")
	if spec == nil {
		return nil
	}
	move(spec, "backend", "defaultBackend")
	upgradeBackend(mapAt(spec, "defaultBackend"))
	each(spec["rules"], func(rule map[string]any) {
		each(mapAt(rule, "http")["paths"], func(path map[string]any) {
			// What a path meant was the controller's business; the new version wants that said.
			if t, ok := path["pathType"]; !ok || t == nil {
				path["pathType"] = "ImplementationSpecific"
			}
			upgradeBackend(mapAt(path, "backend"))
		})
	})
	return nil
}

func upgradeBackend(b map[string]any) {
	name, hasName := b["serviceName"]
	port, hasPort := b["servicePort"]
	if !hasName && !hasPort {
		return
	}
	delete(b, "serviceName")
	delete(b, "servicePort")
	service := map[string]any{}
	if hasName {
		service["name"] = name
	}
	if hasPort {
		service["port"] = servicePort(port)
	}
	b["service"] = service
}

// servicePort splits the old number-or-name. A name made of digits, which is how quoted numbers arrive, is no legal port name.
func servicePort(v any) map[string]any {
	if s, ok := v.(string); ok {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return map[string]any{"name": s}
		}
		return map[string]any{"number": n}
	}
	return map[string]any{"number": v}
}

// upgradeBudget keeps the meaning of an empty selector, which selected nothing and now selects everything.
func upgradeBudget(obj map[string]any) []string {
	spec := mapAt(obj, "spec")
	if sel, ok := spec["selector"]; ok && isEmptyMap(sel) {
		delete(spec, "selector")
		return []string{"empty spec.selector dropped, it selected nothing and would now select every pod"}
	}
	return nil
}

// upgradeBinding turns the subjects' apiVersion of v1alpha1 into the apiGroup of today.
func upgradeBinding(obj map[string]any) []string {
	each(obj["subjects"], func(s map[string]any) {
		v, ok := s["apiVersion"].(string)
		if !ok {
			return
		}
		delete(s, "apiVersion")
		if _, ok := s["apiGroup"]; ok {
			return
		}
		switch group, _, grouped := strings.Cut(v, "/"); {
		case s["kind"] == "User" || s["kind"] == "Group":
			s["apiGroup"] = "rbac.authorization.k8s.io"
		case grouped:
			s["apiGroup"] = group
		}
	})
	return nil
}

func upgradeAutoscaler(obj map[string]any) []string {
	spec := mapAt(obj, "spec")
	if ref := mapAt(spec, "scaleTargetRef"); ref != nil {
		upgrade(ref)
	}
	if obj["apiVersion"] != "autoscaling/v2beta1" {
		return nil
	}
	each(spec["metrics"], func(metric map[string]any) {
		for _, source := range []string{"resource", "containerResource", "pods", "object", "external"} {
			if m := mapAt(metric, source); m != nil {
				upgradeMetric(source, m)
			}
		}
	})
	return nil
}

// upgradeMetric gathers the target and the metric's name, which v2beta1 had flat in each source.
func upgradeMetric(source string, m map[string]any) {
	if source == "object" {
		move(m, "target", "describedObject")
		upgrade(mapAt(m, "describedObject"))
	}
	target := map[string]any{}
	for _, t := range []struct{ old, key, kind string }{
		{"targetAverageUtilization", "averageUtilization", "Utilization"},
		{"targetAverageValue", "averageValue", "AverageValue"},
		{"averageValue", "averageValue", "AverageValue"},
		{"targetValue", "value", "Value"},
	} {
		v, ok := m[t.old]
		if !ok {
			continue
		}
		delete(m, t.old)
		if len(target) == 0 {
			target["type"], target[t.key] = t.kind, v
		}
	}
	if len(target) > 0 {
		m["target"] = target
	}
	if source == "resource" || source == "containerResource" {
		return
	}
	metric := map[string]any{}
	if v, ok := m["metricName"]; ok {
		metric["name"] = v
	}
	for _, key := range []string{"selector", "metricSelector"} {
		if v, ok := m[key]; ok {
			metric["selector"] = v
		}
		delete(m, key)
	}
	delete(m, "metricName")
	if len(metric) > 0 {
		m["metric"] = metric
	}
}
