package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestIPv6(t *testing.T) {
	t.Parallel()
	l := open(t)
	ns := l.namespace(t)
	l.deploy(t, ns, workload{Name: "client"}, workload{Name: "server"})
	if ips := l.run(t, ns, "kubectl -n $NS get pod -l app=server -o jsonpath={.items[0].status.podIPs}"); !strings.Contains(ips, "fd00:") {
		t.Skipf("SKIPPED: the machine has no IPv6, so the sandbox has none: %s", ips)
	}
	l.apply(t, ns, `apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  ipFamilyPolicy: SingleStack
  ipFamilies: [IPv6]
  selector: {app: server}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp, port: 9000}
`)
	ip := strings.TrimSpace(l.run(t, ns, "kubectl -n $NS get service server -o jsonpath={.spec.clusterIP}"))
	for target, code := range map[string]string{"http://server/": "200", "http://[" + ip + "]/": "200", "tcp://server:9000": "ok"} {
		until(t, target+" answers", func() error {
			c, err := l.tryCall(t, ns, "client", "-n 20 "+target)
			if err == nil {
				err = c.only(code)
			}
			return err
		})
	}
	c := l.call(t, ns, "client", "http://server/")
	if len(c.Last.Header["X-Request-Id"]) == 0 {
		t.Errorf("the request passed by the proxies: %v", c.Last.Header)
	}
}

func TestAHeadlessServiceReachesEachOfItsPods(t *testing.T) {
	t.Parallel()
	l := open(t)
	ns := l.namespace(t)
	l.deploy(t, ns, workload{Name: "client"})
	l.run(t, ns, `meshctl kube-inject -f - <<'END_OF_FILE' | kubectl apply -n $NS -f -
apiVersion: v1
kind: Service
metadata: {name: store}
spec:
  clusterIP: None
  selector: {app: store}
  ports:
  - {name: http, port: 8080}
  - {name: tcp, port: 9000}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec:
  serviceName: store
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: store}}
  template:
    metadata: {labels: {app: store}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: echo
        image: `+echoTag+`
        imagePullPolicy: IfNotPresent
        args: [serve]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
END_OF_FILE
		kubectl -n $NS rollout status statefulset/store --timeout=120s`)
	for _, pod := range []string{"store-0", "store-1"} {
		for target, code := range map[string]string{"http://" + pod + ".store:8080/": "200", "tcp://" + pod + ".store:9000": "ok"} {
			until(t, target+" is answered by "+pod, func() error {
				c, err := l.tryCall(t, ns, "client", "-n 10 "+target)
				if err == nil {
					err = c.only(code)
				}
				if err == nil && c.Pods[pod] != c.Calls {
					err = fmt.Errorf("%v answered", c.Pods)
				}
				return err
			})
		}
	}
	until(t, "the service's own name reaches some of them", func() error {
		c, err := l.tryCall(t, ns, "client", "-n 10 http://store:8080/")
		if err == nil {
			err = c.only("200")
		}
		return err
	})
}

func TestAJobWithASidecarEnds(t *testing.T) {
	t.Parallel()
	l := open(t)
	ns := l.namespace(t)
	l.services(t, ns, "server")
	l.deploy(t, ns, workload{Name: "server"})
	l.run(t, ns, `meshctl kube-inject -f - <<'END_OF_FILE' | kubectl apply -n $NS -f -
apiVersion: batch/v1
kind: Job
metadata: {name: caller}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {app: caller}}
    spec:
      restartPolicy: Never
      containers:
      - name: echo
        image: `+echoTag+`
        imagePullPolicy: IfNotPresent
        args: [call, -n, "5", "http://server/"]
END_OF_FILE
		kubectl -n $NS wait --for=condition=Complete job/caller --timeout=90s`)
	c, err := parseTally([]byte(l.run(t, ns, "kubectl -n $NS logs job/caller -c echo")))
	if err != nil {
		t.Fatal(err)
	}
	// Its first call is made while the sidecar is there already: that is what starting first is for.
	if err := c.only("200"); err != nil {
		t.Error(err)
	}
}
