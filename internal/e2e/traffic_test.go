package e2e_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// One client, two versions of a server, one instance that fails its readiness, one service without instances.
func TestServicesThroughSidecars(t *testing.T) {
	t.Parallel()
	l := open(t)
	ns := l.namespace(t)
	l.services(t, ns, "server", "empty", "plain")
	l.deploy(t, ns,
		workload{Name: "client"},
		workload{Name: "server-v1", App: "server", Version: "v1"},
		workload{Name: "server-v2", App: "server", Version: "v2"},
		workload{Name: "plain", Bare: true},
	)
	until(t, "the client reaches both servers", func() error {
		c, err := l.tryCall(t, ns, "client", "-n 10 http://server/")
		if err == nil {
			err = c.only("200")
		}
		if err == nil && len(c.Pods) != 2 {
			err = fmt.Errorf("%v answered", c.Pods)
		}
		return err
	})

	t.Run("HTTP requests are shared among all instances, over one connection", func(t *testing.T) {
		c := l.call(t, ns, "client", "-n 200 http://server/")
		if err := c.only("200"); err != nil {
			t.Error(err)
		}
		evenly(t, c, 2)
		if len(c.Last.Header["X-Request-Id"]) == 0 {
			t.Errorf("the request came without the proxies' mark: %v", c.Last.Header)
		}
		if c.Last.Host != "server" {
			t.Errorf("the server was asked for host %q, want server", c.Last.Host)
		}
	})

	t.Run("the service's longer names and its address mean the same", func(t *testing.T) {
		ip := strings.TrimSpace(l.run(t, ns, "kubectl -n $NS get service server -o jsonpath={.spec.clusterIP}"))
		for _, host := range []string{"server." + ns, "server." + ns + ".svc", "server." + ns + ".svc.cluster.local", ip} {
			c := l.call(t, ns, "client", "-n 20 http://"+host+"/")
			if err := c.only("200"); err != nil {
				t.Errorf("%s: %v", host, err)
			}
			evenly(t, c, 2)
		}
	})

	t.Run("gRPC calls are shared one by one, over one connection", func(t *testing.T) {
		c := l.call(t, ns, "client", "-n 200 grpc://server:9090")
		if err := c.only("OK"); err != nil {
			t.Error(err)
		}
		evenly(t, c, 2)
	})

	t.Run("TCP connections work, also when the server speaks first", func(t *testing.T) {
		c := l.call(t, ns, "client", "-n 60 tcp://server:9000")
		if err := c.only("ok"); err != nil {
			t.Error(err)
		}
		if len(c.Pods) != 2 {
			t.Errorf("connections went to %v, want both instances", c.Pods)
		}
	})

	t.Run("an unknown host is 404", func(t *testing.T) {
		c := l.call(t, ns, "client", "-n 5 -H Host:nowhere.example http://server/")
		if err := c.only("404"); err != nil {
			t.Error(err)
		}
	})

	t.Run("a service without instances is 503, and harms no other", func(t *testing.T) {
		c := l.call(t, ns, "client", "-n 5 http://empty/")
		if err := c.only("503"); err != nil {
			t.Error(err)
		}
		if err := l.call(t, ns, "client", "-n 20 http://server/").only("200"); err != nil {
			t.Error(err)
		}
	})

	t.Run("a pod without a sidecar is reached, and reaches", func(t *testing.T) {
		if err := l.call(t, ns, "client", "-n 20 http://plain/").only("200"); err != nil {
			t.Errorf("from the mesh to outside: %v", err)
		}
		if err := l.call(t, ns, "plain", "-n 20 http://server/").only("200"); err != nil {
			t.Errorf("from outside into the mesh: %v", err)
		}
	})

	t.Run("what is no service of the mesh passes through", func(t *testing.T) {
		c := l.call(t, ns, "client", "-n 3 https://kubernetes.default.svc/version")
		if err := c.only("200"); err != nil {
			t.Errorf("the API server's own TLS: %v", err)
		}
		ip := strings.TrimSpace(l.run(t, ns, "kubectl -n $NS get pod -l app=server,version=v2 -o jsonpath={.items[0].status.podIP}"))
		c = l.call(t, ns, "client", "-n 5 http://"+ip+":8080/")
		if err := c.only("200"); err != nil || c.Versions["v2"] != 5 {
			t.Errorf("a pod called by its own address: %v %v", c.Versions, err)
		}
	})

	t.Run("an instance that is not ready gets nothing, and no request fails", func(t *testing.T) {
		ld := l.startLoad(t, ns, "client", "-pause 5ms http://server/")
		l.ready(t, ns, "server-v2", false)
		until(t, "only v1 answers", func() error { return l.answers(t, ns, "client", "http://server/", "v1") })
		l.ready(t, ns, "server-v2", true)
		until(t, "both answer", func() error {
			c, err := l.tryCall(t, ns, "client", "-n 20 http://server/")
			if err == nil && len(c.Pods) != 2 {
				err = fmt.Errorf("%v answered", c.Pods)
			}
			return err
		})
		if err := ld.stop(t).only("200"); err != nil {
			t.Error(err)
		}
	})

	t.Run("a deployment rolls and no request fails", func(t *testing.T) {
		ld := l.startLoad(t, ns, "client", "-pause 5ms http://server/")
		l.run(t, ns, "kubectl -n $NS rollout restart deployment/server-v1")
		l.run(t, ns, "kubectl -n $NS rollout status deployment/server-v1 --timeout=90s")
		c := ld.stop(t)
		if err := c.only("200"); err != nil {
			t.Error(err)
		}
		t.Logf("%d requests in %.1f s", c.Calls, c.Seconds)
	})

	t.Run("kubectl logs, exec and port-forward work on meshed pods", func(t *testing.T) {
		if got := l.run(t, ns, "kubectl -n $NS logs deployment/server-v2 -c echo"); !strings.Contains(got, "serving as server-v2-") {
			t.Errorf("the log reads %q", got)
		}
		got := l.run(t, ns, `
			coproc FORWARD { exec kubectl -n $NS port-forward deployment/server-v2 :8080; }
			trap 'kill $FORWARD_PID' EXIT
			read -r line <&${FORWARD[0]}
			address=${line#Forwarding from }
			exec 3<>/dev/tcp/${address%%:*}/$(sed 's/.*127.0.0.1:\([0-9]*\) .*/\1/' <<<"$line")
			printf 'GET / HTTP/1.0\r\n\r\n' >&3
			cat <&3`)
		if !strings.Contains(got, `"version":"v2"`) {
			t.Errorf("through the forwarded port came %q", got)
		}
	})
}

// ready makes a server's readiness probe succeed or fail.
func (l *lab) ready(t *testing.T, ns, deployment string, yes bool) {
	t.Helper()
	l.run(t, ns, fmt.Sprintf("kubectl -n $NS exec deployment/%s -c echo -- /echo call -method POST http://127.0.0.1:8080/ready/%t", deployment, yes))
}

// answers wants every one of a number of requests to be answered by one version.
func (l *lab) answers(t *testing.T, ns, from, call, version string) error {
	t.Helper()
	c, err := l.tryCall(t, ns, from, "-n 30 "+call)
	if err != nil {
		return err
	}
	if err := c.only("200"); err != nil {
		return err
	}
	if c.Versions[version] != c.Calls {
		return fmt.Errorf("%v answered, want %s alone", c.Versions, version)
	}
	return nil
}

// evenly wants n instances to have had about the same share.
func evenly(t *testing.T, c tally, n int) {
	t.Helper()
	err := error(nil)
	if len(c.Pods) != n {
		err = fmt.Errorf("%d instances answered, want %d", len(c.Pods), n)
	}
	for pod, k := range c.Pods {
		if k < c.Calls/n/2 {
			err = errors.Join(err, fmt.Errorf("%s had %d of %d calls", pod, k, c.Calls))
		}
	}
	if err != nil {
		t.Errorf("%v: %v", c.Pods, err)
	}
}
