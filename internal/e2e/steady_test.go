package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
)

// ruleChanges is how often the rules change while the load runs.
const ruleChanges = 1000

// Everything that changes in a mesh changes at once, under steady load, and no request notices. It has the mesh to itself: it restarts Pilot.
func TestNoRequestIsLost(t *testing.T) {
	l := open(t)
	ns := l.namespace(t)
	l.services(t, ns, "server")
	l.deploy(t, ns,
		workload{Name: "client"},
		workload{Name: "server-v1", App: "server", Version: "v1", Replicas: 2},
		workload{Name: "server-v2", App: "server", Version: "v2", Replicas: 2},
	)
	l.mesh(t, ns, "create", rule("default", to("v2")))
	until(t, "version 2 has endpoints", func() error { return l.answers(t, ns, "client", "http://server/", "v2") })
	l.mesh(t, ns, "replace", rule("default", to("v1")))
	until(t, "version 1 has endpoints", func() error { return l.answers(t, ns, "client", "http://server/", "v1") })

	loads := map[string]*load{}
	for name, args := range map[string]string{
		"kept connections":          "-c 2 -pause 5ms http://server/",
		"fresh connections":         "-fresh -pause 10ms http://server/",
		"what may be sent but once": "-method POST -pause 10ms http://server/",
		"gRPC":                      "-pause 10ms grpc://server:9090",
	} {
		loads[name] = l.startLoad(t, ns, "client", args)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	changed := make(chan error, 1)
	go func() { changed <- l.changeRules(ctx, ns, ruleChanges) }()

	// Meanwhile, round by round: new instances of each version, a new Pilot, a Pilot that dies.
	rounds := 0
	pilots := []string{
		"kubectl -n istio-system rollout restart deployment/istio-pilot && kubectl -n istio-system rollout status deployment/istio-pilot --timeout=90s",
		"kubectl -n istio-system delete pod -l istio=pilot --grace-period=0 --force --wait && kubectl -n istio-system rollout status deployment/istio-pilot --timeout=90s",
	}
	for done := false; !done || rounds < 2; rounds++ {
		version := []string{"v1", "v2"}[rounds%2]
		l.run(t, ns, "kubectl -n $NS rollout restart deployment/server-"+version+" && kubectl -n $NS rollout status deployment/server-"+version+" --timeout=90s")
		l.run(t, ns, pilots[rounds%2])
		select {
		case err := <-changed:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
		}
	}
	l.run(t, ns, "meshctl delete routerule -n $NS --all")
	for name, ld := range loads {
		c := ld.stop(t)
		want := "200"
		if name == "gRPC" {
			want = "OK"
		}
		if err := c.only(want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(c.Versions) != 2 {
			t.Errorf("%s: %v answered, want both versions", name, c.Versions)
		}
		t.Logf("%s: %d requests in %.1f s, %d failed; %d rounds of rollouts and restarts", name, c.Calls, c.Seconds, c.Calls-c.Codes[want], rounds)
	}
	until(t, "every proxy is in sync afterwards", func() error { return l.inSync(t, ns, 5) })
}

// changeRules changes the namespace's rules n times: weights and timeouts of one, and one that comes and goes.
func (l *lab) changeRules(ctx context.Context, ns string, n int) error {
	var kubeconfig string
	for _, e := range l.tour.Environ() {
		if path, ok := strings.CutPrefix(e, "KUBECONFIG="); ok {
			kubeconfig = path
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("reading the sandbox's kubeconfig: %w", err)
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("preparing a client: %w", err)
	}
	rules := client.Resource(v1alpha2.GroupVersion.WithResource("routerules")).Namespace(ns)
	apply := func(name string, spec map[string]any) error {
		spec["destination"] = map[string]any{"name": "server"}
		text, err := json.Marshal(map[string]any{
			"apiVersion": v1alpha2.GroupVersion.String(), "kind": v1alpha2.KindRouteRule, "metadata": map[string]any{"name": name}, "spec": spec,
		})
		if err != nil {
			return err
		}
		force := true
		_, err = rules.Patch(ctx, name, types.ApplyPatchType, text, metav1.PatchOptions{FieldManager: "steady", Force: &force})
		return err
	}
	version := func(v string, weight int) any {
		return map[string]any{"labels": map[string]any{"version": v}, "weight": weight}
	}
	pace := time.NewTicker(25 * time.Millisecond)
	defer pace.Stop()
	for i := range n {
		switch i % 4 {
		case 0, 1:
			err = apply("default", map[string]any{"route": []any{version("v1", i%101), version("v2", 100-i%101)}})
		case 2:
			err = apply("passing", map[string]any{
				"precedence": 2, "match": map[string]any{"request": map[string]any{"headers": map[string]any{"uri": map[string]any{"prefix": "/"}}}},
				"route": []any{version([]string{"v1", "v2"}[i/4%2], 100)}, "httpReqTimeout": map[string]any{"simpleTimeout": map[string]any{"timeout": "10s"}},
			})
		case 3:
			err = rules.Delete(ctx, "passing", metav1.DeleteOptions{})
		}
		if err != nil {
			return fmt.Errorf("making change %d: %w", i, err)
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
