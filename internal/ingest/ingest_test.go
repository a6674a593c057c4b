package ingest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

const (
	podB = `
apiVersion: v1
kind: Pod
metadata: {name: victim, namespace: b, labels: {app: victim}}
status: {podIP: 10.1.0.2}
`
	// aimed is a service that no selector ties to pods; its slices follow.
	aimed = `
apiVersion: v1
kind: Service
metadata: {name: aimed, namespace: %s}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: aimed-1, namespace: %[1]s, labels: {kubernetes.io/service-name: aimed}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.2]%s}]
`
	selecting = `
apiVersion: v1
kind: Service
metadata: {name: selecting, namespace: %s}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80, targetPort: 8080}], selector: {app: victim}}
`
	door = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: door, namespace: b}
spec:
  ingressClassName: istio
  rules: [{http: {paths: [{path: %q, pathType: ImplementationSpecific, backend: {service: {name: selecting, port: {number: 80}}}}]}}]
`
)

// summary is what the tests look at: inbound ports by pod, endpoints by service with the pod they are taken for, and the ingress's paths.
func summary(m *model.Mesh) []string {
	var out []string
	for _, w := range m.Workloads {
		for _, in := range w.Inbound {
			out = append(out, fmt.Sprintf("%s/%s listens on %d for %s", w.Key.Namespace, w.Key.Name, in.Port, in.Hostname))
		}
	}
	for i, s := range m.Services {
		for _, e := range m.Endpoints[i].List {
			out = append(out, fmt.Sprintf("%s.%s leads to %s of pod %q with labels %v", s.Name, s.Namespace, e.Address, e.Workload.Name, e.Labels))
		}
	}
	for _, r := range m.Ingress {
		out = append(out, fmt.Sprintf("%s path %s", r.PathKind, r.Path))
	}
	return out
}

func TestBuild(t *testing.T) {
	const target = ", targetRef: {kind: Pod, name: victim, namespace: b}"
	for name, tc := range map[string]struct {
		objects []string
		want    []string
		finding string
	}{
		"a slice of the pod's own namespace opens a port of it": {
			objects: []string{podB, fmt.Sprintf(aimed, "b", target)},
			want:    []string{"b/victim listens on 8080 for aimed.b.svc.cluster.local", `aimed.b leads to 10.1.0.2 of pod "victim" with labels map[app:victim]`},
		},
		"a slice without a target finds the pod by its address": {
			objects: []string{podB, fmt.Sprintf(aimed, "b", "")},
			want:    []string{"b/victim listens on 8080 for aimed.b.svc.cluster.local", `aimed.b leads to 10.1.0.2 of pod "victim" with labels map[app:victim]`},
		},
		"a slice of another namespace that names the pod leaves it alone": {
			objects: []string{podB, fmt.Sprintf(aimed, "a", target)},
			want:    []string{`aimed.a leads to 10.1.0.2 of pod "" with labels map[]`},
		},
		"a slice of another namespace with the pod's address leaves it alone": {
			objects: []string{podB, fmt.Sprintf(aimed, "a", "")},
			want:    []string{`aimed.a leads to 10.1.0.2 of pod "" with labels map[]`},
		},
		"a selector takes pods of its own namespace": {
			objects: []string{podB, fmt.Sprintf(selecting, "b")},
			want:    []string{"b/victim listens on 8080 for selecting.b.svc.cluster.local"},
		},
		"a selector takes no pods of another namespace": {
			objects: []string{podB, fmt.Sprintf(selecting, "a")},
		},
		"a path with characters of a regular expression is one": {
			objects: []string{fmt.Sprintf(selecting, "b"), fmt.Sprintf(door, "/[a-z]{64}")},
			want:    []string{"regex path /[a-z]{64}"},
		},
		"a path that proxies cannot compile is left out": {
			objects: []string{fmt.Sprintf(selecting, "b"), fmt.Sprintf(door, `/\x{2603}`)},
			finding: `\x{2603} is no byte`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			objs, fs := manifest.Decode("in.yaml", []byte(strings.Join(tc.objects, "\n---\n")), manifest.Options{})
			if finding.HasErrors(fs) {
				t.Fatal(fs)
			}
			mesh, fs := ingest.Build(objects.NewSet(objs...), ingest.Config{})
			if diff := cmp.Diff(tc.want, summary(mesh)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if finding.HasErrors(fs) != (tc.finding != "") || !strings.Contains(fmt.Sprint(fs), tc.finding) {
				t.Errorf("findings %v, want %q", fs, tc.finding)
			}
		})
	}
}
