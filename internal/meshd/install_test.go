package meshd

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/keystore"
	"github.com/meshctl/meshctl/rules"
)

// install creates everything in the install file.
func (l *lab) install() {
	l.t.Helper()
	text, err := fs.ReadFile(rules.FS, "install/istio.yaml")
	if err != nil {
		l.t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(l.kube.Discovery())
	if err != nil {
		l.t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	for _, doc := range strings.Split(string(text), "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			l.t.Fatal(err)
		}
		if len(u.Object) == 0 {
			continue
		}
		m, err := mapper.RESTMapping(u.GroupVersionKind().GroupKind(), u.GroupVersionKind().Version)
		if err != nil {
			l.t.Fatal(err)
		}
		r := l.dyn.Resource(m.Resource)
		if m.Scope.Name() == meta.RESTScopeNameNamespace {
			if u.GetNamespace() != "istio-system" {
				l.t.Errorf("%s %s is in namespace %q", u.GetKind(), u.GetName(), u.GetNamespace())
			}
			_, err = r.Namespace(u.GetNamespace()).Create(l.t.Context(), u, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
		} else {
			_, err = r.Create(l.t.Context(), u, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
		}
		if err != nil {
			l.t.Fatalf("%s %s: %v", u.GetKind(), u.GetName(), err)
		}
	}
}

// as is a kubeconfig with the rights of a service account and no more.
func (l *lab) as(namespace, account string) string {
	l.t.Helper()
	r, err := l.kube.CoreV1().ServiceAccounts(namespace).CreateToken(l.t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(l.server.Kubeconfig)
	if err != nil {
		l.t.Fatal(err)
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: r.Status.Token}
	}
	path := l.t.TempDir() + "/kubeconfig"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		l.t.Fatal(err)
	}
	return path
}

func TestPilotNeedsExactlyTheRightsItIsGiven(t *testing.T) {
	l := emptyLab(t)
	l.install()
	p := l.pilot(l.as("istio-system", "istio-pilot-service-account"))
	p.ready()
	ns := l.server.Namespace(t)
	l.account(ns, "reviews")
	l.apply(ns, reviews)
	l.apply(ns, routeTo("to-v1", "v1"))
	proxy := p.connect("sidecar~10.1.0.1~reviews-v1."+ns+"~d", l.token(ns, "reviews", "reviews-v1"), ns)
	proxy.holds(routesType, "9080")
	l.condition(ns, "to-v1", "Programmed", "True", "Programmed")
	l.apply(ns, `
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: out}
spec:
  destination: {service: "*.example.com"}
  ports: [{port: 80, protocol: http}]`)
	l.apply("istio-system", `
apiVersion: v1
kind: Pod
metadata: {name: istio-ingress-of-install, labels: {istio: ingress}}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers: [{name: c, image: i, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]
status: {phase: Running, hostIP: 192.0.2.7, hostIPs: [{ip: 192.0.2.7}]}`)
	l.apply(ns, `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: ours}
spec: {ingressClassName: istio, defaultBackend: {service: {name: reviews, port: {number: 9080}}}}`)
	until(t, "every status is written", func() error {
		in, err := l.kube.NetworkingV1().Ingresses(ns).Get(t.Context(), "ours", metav1.GetOptions{})
		if err != nil || len(in.Status.LoadBalancer.Ingress) == 0 {
			return errors.Join(err, errors.New("the Ingress has no address"))
		}
		u, err := l.dyn.Resource(routeRules.GroupVersion().WithResource("egressrules")).Namespace(ns).Get(t.Context(), "out", metav1.GetOptions{})
		if err != nil || u.Object["status"] == nil {
			return errors.Join(err, errors.New("the EgressRule has no status"))
		}
		return nil
	})
	m, err := l.kube.CoreV1().ConfigMaps(ns).Get(t.Context(), keystore.RootConfigMap, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.Data = nil
	if _, err := l.kube.CoreV1().ConfigMaps(ns).Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the root is repaired", func() error {
		m, err := l.kube.CoreV1().ConfigMaps(ns).Get(t.Context(), keystore.RootConfigMap, metav1.GetOptions{})
		if err != nil || m.Data[keystore.RootKey] == "" {
			return errors.Join(err, errors.New("empty"))
		}
		return nil
	})
	lease := func() string {
		t.Helper()
		lease, err := l.kube.CoordinationV1().Leases("istio-system").Get(t.Context(), "istio-pilot-status", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return lease.Spec.RenewTime.Format(time.RFC3339Nano)
	}
	before := lease()
	until(t, "the lease is renewed", func() error {
		if lease() == before {
			return errors.New("not yet")
		}
		return nil
	})
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, "forbidden") || strings.Contains(line, "unknown") && strings.Contains(line, "reflector") {
			t.Errorf("a right is missing: %s", line)
		}
	}
}
