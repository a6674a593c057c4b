package manifest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestUpgrade(t *testing.T) {
	cases := []struct {
		name     string
		in       string
		from, to string
		want     string
	}{{
		name: "a Deployment of 2017 gets its selector from the template",
		in:   `{apiVersion: extensions/v1beta1, kind: Deployment, metadata: {name: a}, spec: {rollbackTo: {revision: 1}, template: {metadata: {labels: {app: a}}}}}`,
		from: "extensions/v1beta1", to: "apps/v1",
		want: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}}}}`,
	}, {
		name: "a selector that is there stays",
		in:   `{apiVersion: apps/v1beta2, kind: StatefulSet, spec: {selector: {matchLabels: {x: y}}, template: {metadata: {labels: {app: a, x: y}}}}}`,
		from: "apps/v1beta2", to: "apps/v1",
		want: `{apiVersion: apps/v1, kind: StatefulSet, spec: {selector: {matchLabels: {x: y}}, template: {metadata: {labels: {app: a, x: y}}}}}`,
	}, {
		name: "an Ingress keeps its class annotation and what its paths meant",
		in: `{apiVersion: extensions/v1beta1, kind: Ingress, metadata: {annotations: {kubernetes.io/ingress.class: istio}}, spec: {backend: {serviceName: d, servicePort: web},
rules: [{http: {paths: [{path: /a, backend: {serviceName: s, servicePort: 9080}}, {backend: {serviceName: s, servicePort: "80"}}]}}]}}`,
		from: "extensions/v1beta1", to: "networking.k8s.io/v1",
		want: `{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {annotations: {kubernetes.io/ingress.class: istio}}, spec: {defaultBackend: {service: {name: d, port: {name: web}}},
rules: [{http: {paths: [{path: /a, pathType: ImplementationSpecific, backend: {service: {name: s, port: {number: 9080}}}}, {pathType: ImplementationSpecific, backend: {service: {name: s, port: {number: 80}}}}]}}]}}`,
	}, {
		name: "a CronJob changes its version alone",
		in:   `{apiVersion: batch/v1beta1, kind: CronJob, spec: {schedule: x}}`,
		from: "batch/v1beta1", to: "batch/v1",
		want: `{apiVersion: batch/v1, kind: CronJob, spec: {schedule: x}}`,
	}, {
		name: "a budget that selected nothing goes on selecting nothing",
		in:   `{apiVersion: policy/v1beta1, kind: PodDisruptionBudget, spec: {selector: {}, minAvailable: 1}}`,
		from: "policy/v1beta1", to: "policy/v1",
		want: `{apiVersion: policy/v1, kind: PodDisruptionBudget, spec: {minAvailable: 1}}`,
	}, {
		name: "subjects of v1alpha1 name their group",
		in:   `{apiVersion: rbac.authorization.k8s.io/v1alpha1, kind: RoleBinding, subjects: [{kind: User, name: a, apiVersion: rbac/v1}, {kind: ServiceAccount, name: b, apiVersion: v1}]}`,
		from: "rbac.authorization.k8s.io/v1alpha1", to: "rbac.authorization.k8s.io/v1",
		want: `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, subjects: [{kind: User, name: a, apiGroup: rbac.authorization.k8s.io}, {kind: ServiceAccount, name: b}]}`,
	}, {
		name: "an autoscaler of v2beta1 gets its targets gathered",
		in: `{apiVersion: autoscaling/v2beta1, kind: HorizontalPodAutoscaler, spec: {scaleTargetRef: {apiVersion: extensions/v1beta1, kind: Deployment, name: d}, metrics: [
{type: Resource, resource: {name: cpu, targetAverageUtilization: 50}}, {type: Pods, pods: {metricName: p, targetAverageValue: 1k}},
{type: Object, object: {target: {apiVersion: extensions/v1beta1, kind: Ingress, name: i}, metricName: r, targetValue: 10}},
{type: External, external: {metricName: q, metricSelector: {matchLabels: {a: b}}, targetAverageValue: 30}}]}}`,
		from: "autoscaling/v2beta1", to: "autoscaling/v2",
		want: `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}, metrics: [
{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}, {type: Pods, pods: {metric: {name: p}, target: {type: AverageValue, averageValue: 1k}}},
{type: Object, object: {describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: i}, metric: {name: r}, target: {type: Value, value: 10}}},
{type: External, external: {metric: {name: q, selector: {matchLabels: {a: b}}}, target: {type: AverageValue, averageValue: 30}}}]}}`,
	}, {
		name: "a version that is served is left alone",
		in:   `{apiVersion: apps/v1, kind: Deployment, spec: {}}`,
		want: `{apiVersion: apps/v1, kind: Deployment, spec: {}}`,
	}, {
		name: "a retired version without successor is left alone",
		in:   `{apiVersion: extensions/v1beta1, kind: PodSecurityPolicy}`,
		want: `{apiVersion: extensions/v1beta1, kind: PodSecurityPolicy}`,
	}, {
		name: "shapes that make no sense do not stop it",
		in:   `{apiVersion: extensions/v1beta1, kind: Ingress, spec: {backend: 3, rules: {a: b}}}`,
		from: "extensions/v1beta1", to: "networking.k8s.io/v1",
		want: `{apiVersion: networking.k8s.io/v1, kind: Ingress, spec: {defaultBackend: 3, rules: {a: b}}}`,
	}}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := parseMap(t, c.in)
			from, to, changed := Upgrade(got)
			if from != c.from || to != c.to || changed != (c.to != "") {
				t.Errorf("Upgrade says %q, %q, %v; want %q, %q", from, to, changed, c.from, c.to)
			}
			// Through YAML on both sides, so that kinds of numbers do not matter.
			text, err := yaml.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(parseMap(t, c.want), parseMap(t, string(text))); diff != "" {
				t.Errorf("upgraded object (-want +got):\n%s", diff)
			}
			if _, _, again := Upgrade(got); again {
				t.Error("a second Upgrade changes it again")
			}
		})
	}
}

func parseMap(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}
