package e2e_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// This one has the mesh to itself: it takes Pilot away from everyone.
func TestTheMeshWithoutPilot(t *testing.T) {
	l := open(t)
	ns := l.namespace(t)
	l.services(t, ns, "server", "restarted", "newcomer")
	l.deploy(t, ns,
		workload{Name: "client"},
		workload{Name: "server-v1", App: "server", Version: "v1"},
		workload{Name: "server-v2", App: "server", Version: "v2"},
		workload{Name: "restarted"},
	)
	l.mesh(t, ns, "create", rule("default", to("v1")))
	until(t, "the rule is in force", func() error { return l.answers(t, ns, "client", "http://server/", "v1") })
	until(t, "proxy-status shows every proxy in sync", func() error { return l.inSync(t, ns, 4) })

	ld := l.startLoad(t, ns, "client", "-pause 5ms http://server/")
	t.Cleanup(func() { l.run(t, ns, pilotBack) })
	l.run(t, ns, `
		kubectl -n istio-system scale deployment/istio-pilot --replicas=0
		kubectl -n istio-system delete pod -l istio=pilot --grace-period=0 --force --wait`)

	if s := l.try(t, ns, "meshctl proxy-status"); s.Exit != 3 || strings.Count(strings.TrimSpace(s.Stderr), "\n") > 0 {
		t.Errorf("proxy-status without Pilot ended with %d, want 3 and one line: %s", s.Exit, s.Stderr)
	}
	if err := l.answers(t, ns, "client", "http://server/", "v1"); err != nil {
		t.Errorf("traffic while Pilot is away: %v", err)
	}

	// Envoy goes; the agent starts it again with what it last had.
	l.call(t, ns, "client", "-method POST http://127.0.0.1:15000/stats") // the admin port is there, and for this pod alone
	quit := func(pod string) {
		l.run(t, ns, "kubectl -n $NS exec deployment/"+pod+" -c echo -- /echo call -method POST http://127.0.0.1:15000/quitquitquit")
	}
	quit("restarted")
	until(t, "a restarted sidecar serves again without Pilot", func() error {
		c, err := l.tryCall(t, ns, "client", "-n 5 http://restarted/")
		return errors.Join(err, c.only("200"))
	})
	until(t, "a restarted sidecar still knows the rule", func() error { return l.answers(t, ns, "restarted", "http://server/", "v1") })

	// A new pod cannot have a configuration yet, so it must not be called ready.
	names := l.launch(t, ns, workload{Name: "newcomer"})
	until(t, "the newcomer's proxy runs", func() error {
		s := l.try(t, ns, `kubectl -n $NS get pod -l app=newcomer -o jsonpath='{.items[*].status.initContainerStatuses[?(@.name=="istio-proxy")].state.running.startedAt}{.items[*].status.containerStatuses[?(@.name=="istio-proxy")].state.running.startedAt}'`)
		if strings.TrimSpace(s.Stdout) == "" {
			return fmt.Errorf("not yet: %s", s.Stderr)
		}
		return nil
	})
	if s := l.try(t, ns, "kubectl -n $NS wait --for=condition=Available --timeout=5s "+names); s.Exit == 0 {
		t.Error("a pod without configuration is ready")
	}

	l.run(t, ns, pilotBack)
	l.run(t, ns, "kubectl -n $NS wait --for=condition=Available --timeout=90s "+names)
	until(t, "the newcomer is reached", func() error {
		c, err := l.tryCall(t, ns, "client", "-n 5 http://newcomer/")
		return errors.Join(err, c.only("200"))
	})
	until(t, "every proxy is in sync again", func() error { return l.inSync(t, ns, 5) })
	c := ld.stop(t)
	if err := c.only("200"); err != nil {
		t.Errorf("of %d requests while Pilot was away and came back: %v", c.Calls, err)
	}
	if c.Versions["v1"] != c.Calls {
		t.Errorf("the rule was forgotten: %v answered", c.Versions)
	}
	l.mesh(t, ns, "replace", rule("default", to("v2")))
	until(t, "a change reaches everyone again", func() error {
		return errors.Join(l.answers(t, ns, "client", "http://server/", "v2"), l.answers(t, ns, "restarted", "http://server/", "v2"))
	})

	l.run(t, ns, "kubectl -n $NS delete deployment newcomer --wait && kubectl -n $NS wait --for=delete pod -l app=newcomer --timeout=60s")
	until(t, "a proxy that went is shown no more", func() error { return l.inSync(t, ns, 4) })
}

const pilotBack = `
	kubectl -n istio-system scale deployment/istio-pilot --replicas=1
	kubectl -n istio-system rollout status deployment/istio-pilot --timeout=90s`

// inSync wants proxy-status to show n proxies of the namespace, each with every type in sync.
func (l *lab) inSync(t *testing.T, ns string, n int) error {
	t.Helper()
	s := l.try(t, ns, "meshctl proxy-status")
	if s.Exit != 0 {
		return errors.New(s.Stderr)
	}
	var rows []string
	for line := range strings.Lines(s.Stdout) {
		if strings.Contains(line, ns) {
			rows = append(rows, line)
		}
	}
	if len(rows) != n {
		return fmt.Errorf("%d proxies of %s are shown, want %d:\n%s", len(rows), ns, n, s.Stdout)
	}
	for _, row := range rows {
		if !strings.Contains(row, "SYNCED") || strings.Contains(row, "STALE") || strings.Contains(row, "ERROR") {
			return fmt.Errorf("not in sync: %s", row)
		}
	}
	return nil
}
