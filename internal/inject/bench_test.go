package inject

import (
	"fmt"
	"strings"
	"testing"
)

const benchDeployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: d%d
  labels: {app: d}
spec:
  replicas: 2
  selector:
    matchLabels:
      app: d
  template:
    metadata:
      labels:
        app: d
    spec:
      containers:
      - name: d
        image: example/d:1
        ports:
        - containerPort: 8080
        env:
        - name: A
          value: "1"
        readinessProbe:
          httpGet: {path: /, port: 8080}
        resources:
          requests: {cpu: 10m, memory: 10Mi}
---
`

// One operation is a file of 100 Deployments.
func BenchmarkRewrite(b *testing.B) {
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, benchDeployment, i)
	}
	in := testInjector()
	b.ReportAllocs()
	for b.Loop() {
		_, fs := Rewrite("in.yaml", []byte(text.String()), func(obj map[string]any) (map[string]any, bool) {
			obj, rs := in.Object(obj)
			return obj, rs[0].Changed
		})
		if len(fs) > 0 {
			b.Fatal(fs)
		}
	}
}

// What reading the same file costs by itself.
func BenchmarkParseAlone(b *testing.B) {
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, benchDeployment, i)
	}
	b.ReportAllocs()
	for b.Loop() {
		_, fs := Rewrite("in.yaml", []byte(text.String()), func(obj map[string]any) (map[string]any, bool) { return obj, false })
		if len(fs) > 0 {
			b.Fatal(fs)
		}
	}
}
