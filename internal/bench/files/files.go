// Package files writes files of any number of objects, of the shapes that people write, for measuring.
//
// In: a number. Out: the same bytes on every run. It needs nothing, so that the program which measures other programs stays small.
package files

import (
	"bytes"
	"fmt"
)

// Rules is a file of n RouteRules, of the shapes that people write: a match by cookie, weights, a timeout with retries, a fault.
func Rules(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `---
# Rule %[1]d
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata:
  name: rule-%[1]d
  namespace: default
  labels: {team: shop}
spec:
  destination:
    name: service-%[1]d
  precedence: %[2]d
`, i, 1+i%5)
		switch i % 4 {
		case 0:
			b.WriteString("  match:\n    request:\n      headers:\n        cookie:\n          regex: \"^(.*?;)?(user=jason)(;.*)?$\"\n  route:\n  - labels:\n      version: v2\n")
		case 1:
			b.WriteString("  route:\n  - labels:\n      version: v1\n    weight: 90\n  - labels:\n      version: v2\n    weight: 10\n")
		case 2:
			b.WriteString("  match:\n    request:\n      headers:\n        uri: {prefix: /api}\n        method: {exact: GET}\n  route:\n  - labels: {version: v1}\n" +
				"  httpReqTimeout:\n    simpleTimeout:\n      timeout: 2s\n  httpReqRetries:\n    simpleRetry:\n      attempts: 3\n      perTryTimeout: 500ms\n")
		default:
			b.WriteString("  match:\n    source:\n      name: frontend\n  route:\n  - labels:\n      version: v1\n  httpFault:\n    delay:\n      percent: 100\n      fixedDelay: 2s\n")
		}
	}
	return b.Bytes()
}

// Deployments is a file of n Deployments.
func Deployments(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `---
# Deployment %[1]d
apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-%[1]d
  labels:
    app: app-%[1]d
spec:
  replicas: 3
  selector:
    matchLabels:
      app: app-%[1]d
  template:
    metadata:
      labels:
        app: app-%[1]d
        version: v1
    spec:
      serviceAccountName: app-%[1]d
      containers:
      - name: app
        image: registry.example.com/app:%[1]d   # pinned
        ports:
        - name: http
          containerPort: 8080
        env:
        - name: LOG_LEVEL
          value: info
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        readinessProbe:
          httpGet:
            path: /healthz
            port: 8080
        resources:
          requests:
            cpu: 100m
            memory: 128Mi
        volumeMounts:
        - name: config
          mountPath: /etc/app
      volumes:
      - name: config
        configMap:
          name: app-%[1]d
`, i)
	}
	return b.Bytes()
}

// Documents cuts such a file into its documents, for a parser that takes one at a time.
func Documents(file []byte) [][]byte {
	return bytes.Split(bytes.TrimPrefix(file, []byte("---\n")), []byte("\n---\n"))
}
