package tour

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"
)

// canaryRequests is how many requests the canary's shares are judged by.
const canaryRequests = 1000

func (t *Tour) sandbox(ctx context.Context) error {
	if _, err := t.shell(ctx, ".", "meshctl sandbox up", 0); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s\n", t.strong(`$ eval "$(meshctl sandbox env)"`))
	// As typed, a failure of the inner command would go unnoticed.
	s, err := t.Type(ctx, ".", `said=$(meshctl sandbox env) && eval "$said" && env -0`)
	if err != nil {
		return err
	}
	if s.Exit != 0 {
		return fmt.Errorf("asking for the sandbox's environment: %s", strings.TrimSpace(s.Stderr))
	}
	t.env = strings.Split(strings.TrimSuffix(s.Stdout, "\x00"), "\x00")
	return t.do(ctx, "kubectl get nodes")
}

func (t *Tour) install(ctx context.Context) error {
	if _, err := t.shell(ctx, ".", "kubectl apply -f rules/install/istio.yaml", 0); err != nil {
		return err
	}
	if err := t.do(ctx, "kubectl -n istio-system wait --for=condition=Available deployment --all --timeout=120s"); err != nil {
		return err
	}
	s, err := t.shell(ctx, bookinfoDir, "kubectl -n istio-system get pod", 0)
	if err != nil {
		return err
	}
	for _, name := range []string{"istio-pilot-", "istio-ingress-"} {
		if !podRuns(s.Stdout, name) {
			return fmt.Errorf("no pod %s… is Running with all its containers ready", name)
		}
	}
	t.holds("istio-pilot and istio-ingress are Running")
	return nil
}

// podRuns says whether `kubectl get pod` shows a pod of that prefix as Running with every container ready.
func podRuns(table, prefix string) bool {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 3 || !strings.HasPrefix(f[0], prefix) || f[2] != "Running" {
			continue
		}
		if ready, all, ok := strings.Cut(f[1], "/"); ok && ready == all {
			return true
		}
	}
	return false
}

func (t *Tour) bookinfo(ctx context.Context) error {
	s, err := t.shell(ctx, bookinfoDir, "kubectl apply -f <(meshctl kube-inject -f bookinfo-v1.yaml)", 0)
	if err != nil {
		return err
	}
	if !strings.Contains(s.Stderr, "apps/v1") {
		return errors.New("kube-inject did not say that it upgraded the file's Deployments")
	}
	if err := t.deployed(ctx); err != nil {
		return err
	}
	return t.sidecars(ctx, "productpage", "details", "reviews")
}

func (t *Tour) deployed(ctx context.Context) error {
	if err := t.do(ctx, "kubectl wait --for=condition=Available deployment --all --timeout=120s"); err != nil {
		return err
	}
	return t.do(ctx, "kubectl get pod")
}

// sidecars checks that every pod of the apps has a proxy.
func (t *Tour) sidecars(ctx context.Context, apps ...string) error {
	for _, app := range apps {
		s, err := t.Type(ctx, ".", "kubectl get pod -l app="+app+
			` -o jsonpath='{range .items[*]}{.metadata.name}: {.spec.initContainers[*].name} {.spec.containers[*].name}{"\n"}{end}'`)
		if err != nil {
			return err
		}
		if s.Exit != 0 || s.Stdout == "" {
			return fmt.Errorf("looking for the pods of %s: %s", app, s.Stderr)
		}
		for line := range strings.Lines(s.Stdout) {
			if !strings.Contains(line, "istio-proxy") {
				return fmt.Errorf("a pod has no sidecar: %s", line)
			}
		}
	}
	t.holds("every pod of %s has a sidecar", strings.Join(apps, ", "))
	return nil
}

func (t *Tour) ingress(ctx context.Context) error {
	if err := t.do(ctx, "meshctl create -f ingress.yaml"); err != nil {
		return err
	}
	for _, line := range []string{
		`kubectl get po -n istio-system -l istio=ingress -o jsonpath={.items[0].status.hostIP}`,
		`kubectl get svc -n istio-system istio-ingress -o jsonpath={.spec.ports[0].nodePort}`,
	} {
		if err := t.do(ctx, line); err != nil {
			return err
		}
	}
	site, err := t.FindSite(ctx)
	if err != nil {
		return err
	}
	t.site = site
	v := newVisitor(site)
	if err := until(ctx, "the page shows the shop", func(ctx context.Context) error {
		_, err := v.reviews(ctx, "")
		return err
	}); err != nil {
		return err
	}
	a, err := v.fetch(ctx, http.MethodGet, "/productpage", "", "")
	if err != nil {
		return err
	}
	if !strings.Contains(a.body, "The Comedy of Errors") {
		return errors.New("the page does not show the book")
	}
	t.holds("%s/productpage shows the shop", site)

	// Every proxy has it now, so one look each is enough.
	for path, want := range map[string]int{
		"/login": http.StatusOK, "/logout": http.StatusSeeOther,
		"/": http.StatusNotFound, "/api/v1/products": http.StatusNotFound, "/reviews/0": http.StatusNotFound,
	} {
		a, err := v.fetch(ctx, http.MethodGet, path, "", "")
		if err != nil {
			return err
		}
		if a.code != want {
			return fmt.Errorf("%s answered %s, want %d", path, a.status, want)
		}
	}
	a, err = v.fetch(ctx, http.MethodPost, "/login", "", "username=jason")
	if err != nil {
		return err
	}
	if cookie := a.header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "user=jason;") {
		return fmt.Errorf("logging in set the cookie %q", cookie)
	}
	t.holds("/login and /logout work, anything else is 404")
	return nil
}

func (t *Tour) everyoneToV1(ctx context.Context) error {
	for _, file := range []string{"bookinfo-ratings.yaml", "bookinfo-reviews-v2.yaml"} {
		if err := t.do(ctx, "kubectl apply -f <(meshctl kube-inject -f "+file+")"); err != nil {
			return err
		}
	}
	if err := t.deployed(ctx); err != nil {
		return err
	}
	v := newVisitor(t.site)
	if err := until(ctx, "v2 takes its turns", func(ctx context.Context) error { return sees(ctx, v, "", 1, "v2") }); err != nil {
		return err
	}
	t.holds("without a rule, v1 and v2 take turns")
	if err := t.change(ctx, v, "meshctl create -f - < route-default-v1.yaml", func(ctx context.Context) error { return sees(ctx, v, "", 20, "v1") }); err != nil {
		return err
	}
	return t.all(ctx, v, 200, "", "v1")
}

func (t *Tour) canary(ctx context.Context) error {
	s, err := t.shell(ctx, bookinfoDir, "meshctl create -f - < route-v1-90-v2-10.yaml", 1)
	if err != nil {
		return err
	}
	if !strings.Contains(s.Stderr, "replace") || !strings.Contains(s.Stderr, "apply") {
		return errors.New("the refusal names neither replace nor apply")
	}
	t.holds("create refuses what exists, and names replace and apply")
	v := newVisitor(t.site)
	if err := t.change(ctx, v, "meshctl replace -f - < route-v1-90-v2-10.yaml", func(ctx context.Context) error { return sees(ctx, v, "", 1, "v2") }); err != nil {
		return err
	}
	c := v.count(ctx, canaryRequests, "")
	low, high := within(canaryRequests, 0.10)
	fmt.Fprintf(t.out, "   %d requests: %d to v1, %d to v2, %d failed\n", canaryRequests, c.Versions["v1"], c.Versions["v2"], c.Failed)
	if c.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %w", c.Failed, canaryRequests, c.First)
	}
	if n := c.Versions["v2"]; n < low || n > high || n+c.Versions["v1"] != canaryRequests {
		return fmt.Errorf("%d of %d requests met v2, want %d to %d", n, canaryRequests, low, high)
	}
	t.holds("that is 10 %% to v2 (chance alone would give %d to %d)", low, high)
	return nil
}

// within are the bounds that a share p of n requests stays in, but for once in 15,000 times: four standard deviations of the binomial
// distribution on either side.
func within(n int, p float64) (low, high int) {
	mean, sigma := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	return int(math.Ceil(mean - 4*sigma)), int(math.Floor(mean + 4*sigma))
}

func (t *Tour) jason(ctx context.Context) error {
	v := newVisitor(t.site)
	if err := t.change(ctx, v, "meshctl create -f route-user-jason-v2.yaml", func(ctx context.Context) error { return sees(ctx, v, "jason", 50, "v2") }); err != nil {
		return err
	}
	if err := t.all(ctx, v, 200, "jason", "v2"); err != nil {
		return err
	}
	// The canary would still show v2 to some of the others.
	if err := t.change(ctx, v, "meshctl replace -f - < route-default-v1.yaml", func(ctx context.Context) error { return sees(ctx, v, "", 50, "v1") }); err != nil {
		return err
	}
	if err := t.all(ctx, v, 200, "jason", "v2"); err != nil {
		return err
	}
	for _, other := range []string{"", "jasonx", "mary"} {
		if err := t.all(ctx, v, 200, other, "v1"); err != nil {
			return err
		}
	}
	return t.do(ctx, "meshctl get routerules")
}

func (t *Tour) everyoneToV2(ctx context.Context) error {
	v := newVisitor(t.site)
	if err := t.change(ctx, v, "meshctl replace -f - < route-all-v2.yaml", func(ctx context.Context) error { return sees(ctx, v, "", 20, "v2") }); err != nil {
		return err
	}
	if err := t.all(ctx, v, 200, "", "v2"); err != nil {
		return err
	}
	s, err := t.shell(ctx, bookinfoDir, "meshctl proxy-status", 0)
	if err != nil {
		return err
	}
	for _, name := range []string{"productpage-v1-", "reviews-v1-", "reviews-v2-", "ratings-v1-", "details-v1-", "istio-ingress-"} {
		if !strings.Contains(s.Stdout, name) {
			return fmt.Errorf("proxy-status does not show %s…", name)
		}
	}
	if strings.Contains(s.Stdout, "ERROR") {
		return errors.New("a proxy rejected its configuration")
	}
	t.holds("every proxy has its configuration and rejected none")
	return nil
}

// change types a command that changes rules while the page is being loaded all the time, waits until the change is seen, and fails if any
// of those requests did.
func (t *Tour) change(ctx context.Context, v *visitor, line string, seen func(context.Context) error) error {
	var took time.Duration
	c, err := v.during(ctx, func() error {
		if err := t.do(ctx, line); err != nil {
			return err
		}
		begin := time.Now()
		defer func() { took = time.Since(begin) }()
		return until(ctx, "the change is seen", seen)
	})
	if err != nil {
		return err
	}
	if c.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed while the rule changed, the first: %w", c.Failed, c.Failed+c.Total(), c.First)
	}
	t.holds("seen after %.1f s; of %d requests meanwhile none failed", took.Seconds(), c.Total())
	return nil
}

// sees loads the page n times one after another and wants the same version each time.
func sees(ctx context.Context, v *visitor, user string, n int, want string) error {
	for range n {
		got, err := v.reviews(ctx, user)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("reviews %s made the page, want %s", got, want)
		}
	}
	return nil
}

// all wants the same version on each of n pages.
func (t *Tour) all(ctx context.Context, v *visitor, n int, user, want string) error {
	who := "everyone"
	if user != "" {
		who = "the user " + user
	}
	c := v.count(ctx, n, user)
	if c.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %w", c.Failed, n, c.First)
	}
	if c.Versions[want] != n {
		return fmt.Errorf("%d requests of %s met %v, want %s alone", n, who, c.Versions, want)
	}
	t.holds("%s: %d of %d pages with reviews %s", who, c.Versions[want], n, want)
	return nil
}
