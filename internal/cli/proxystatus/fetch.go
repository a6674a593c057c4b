package proxystatus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/proxystatus"
)

// Where a Pilot shows what it knows of its proxies, and how it is recognised.
const (
	pilotSelector = "istio=pilot"
	debugPort     = 15014
	rootConfigMap = "istio-ca-root-cert"
	rootKey       = "root-cert.pem"

	// answerTimeout bounds one Pilot's answer, the forward included.
	answerTimeout = 10 * time.Second
	// maxAnswer bounds its size: ten thousand proxies take a tenth of it.
	maxAnswer = 64 << 20
)

// ErrNoPilot is returned when no Pilot is ready.
var ErrNoPilot = errors.New("no ready istio-pilot pod")

// Fetch asks every ready Pilot of the mesh namespace which proxies it serves. Pilots that do not answer are errors beside the answers of
// the others. The errors are worded for the user.
func Fetch(ctx context.Context, client *kube.Client, namespace string) ([]proxystatus.Proxy, []error) {
	pilots, err := readyPilots(ctx, client, namespace)
	if err != nil {
		return nil, []error{client.Explain(err)}
	}
	roots, err := meshRoots(ctx, client, namespace)
	if err != nil {
		return nil, []error{client.Explain(err)}
	}
	var mu sync.Mutex
	var all []proxystatus.Proxy
	var errs []error
	var wait sync.WaitGroup
	for _, pod := range pilots {
		wait.Go(func() {
			dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
				return client.DialPod(ctx, namespace, pod, debugPort)
			}
			list, err := ask(ctx, dial, namespace, pod, roots)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("asking pilot %s: %w", pod, err))
				return
			}
			all = append(all, list.Proxies...)
		})
	}
	wait.Wait()
	slices.SortFunc(all, func(a, b proxystatus.Proxy) int {
		return strings.Compare(a.Namespace+"/"+a.Name+"/"+a.Pilot, b.Namespace+"/"+b.Name+"/"+b.Pilot)
	})
	return all, errs
}

func readyPilots(ctx context.Context, client *kube.Client, namespace string) ([]string, error) {
	list, err := client.Dynamic.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(namespace).
		List(ctx, metav1.ListOptions{LabelSelector: pilotSelector})
	if err != nil {
		return nil, err
	}
	var ready []string
	for _, u := range list.Items {
		var pod corev1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &pod); err != nil {
			return nil, fmt.Errorf("reading pod %s: %w", u.GetName(), err)
		}
		if isReady(&pod) {
			ready = append(ready, pod.Name)
		}
	}
	if len(ready) == 0 {
		return nil, fmt.Errorf("%w in namespace %s: the mesh is not installed there, or not running (kubectl get pods -n %s)", ErrNoPilot, namespace, namespace)
	}
	return ready, nil
}

func isReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// meshRoots is the root certificate that the mesh publishes; whoever may write that ConfigMap may steer the mesh anyway.
func meshRoots(ctx context.Context, client *kube.Client, namespace string) (*x509.CertPool, error) {
	u, err := client.Dynamic.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(namespace).Get(ctx, rootConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the mesh's root certificate: %w", err)
	}
	data, _ := u.Object["data"].(map[string]any)
	text, _ := data[rootKey].(string)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(text)) {
		return nil, fmt.Errorf("reading the mesh's root certificate: ConfigMap %s/%s holds none under %s", namespace, rootConfigMap, rootKey)
	}
	return roots, nil
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// ask gets one Pilot's answer over dial. It must prove by its certificate to be the Pilot of namespace: the forward ends in a pod's port, and
// whoever listens there could be anyone.
func ask(ctx context.Context, dial dialer, namespace, pod string, roots *x509.CertPool) (*proxystatus.List, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	transport := &http.Transport{
		DialContext:       dial,
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "istio-pilot." + namespace + ".svc", MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://istio-pilot/debug/proxies", nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, errors.Unwrap(err) // without the invented URL
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", response.Status)
	}
	return decode(response.Body, pod)
}

func decode(r io.Reader, pod string) (*proxystatus.List, error) {
	var list proxystatus.List
	if err := json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(&list); err != nil {
		return nil, fmt.Errorf("reading its answer: %w", err)
	}
	for i := range list.Proxies {
		if list.Proxies[i].Pilot == "" {
			list.Proxies[i].Pilot = pod
		}
	}
	return &list, nil
}
