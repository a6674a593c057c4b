package meshd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/meshctl/meshctl/internal/identity"
	"github.com/meshctl/meshctl/internal/keystore"
	"github.com/meshctl/meshctl/internal/proxystatus"
	"github.com/meshctl/meshctl/internal/serve"
	"github.com/meshctl/meshctl/internal/version"
	"github.com/meshctl/meshctl/internal/watch"
	"github.com/meshctl/meshctl/internal/xds"
)

// pilotOptions are the flags of the pilot role.
type pilotOptions struct {
	kubeconfig   string
	meshConfig   string
	namespace    string
	domain       string
	name         string
	xdsAddress   string
	debugXDS     string
	debugAddress string
	healthAddr   string
	logLevel     string
	writeStatus  bool
}

func newPilotCommand() *cobra.Command {
	o := &pilotOptions{}
	cmd := &cobra.Command{
		Use:   "pilot",
		Short: "Configure the proxies: watch the cluster, translate, serve xDS",
		Long: `Configure the proxies.

Pilot watches Services, EndpointSlices, Pods, Ingresses and the mesh's own objects, makes Envoy configuration of them, serves it to the proxies
over ADS, and writes into each object's status what became of it.

A proxy proves its pod with a service account token of audience istio-pilot. Its node id, type~ip~pod.namespace~namespace.svc.domain, says only
whether it is a sidecar, ingress or egress. With --debug-xds-address the same is served in plaintext on loopback to anybody who gives a node id.

A proxy that speaks the incremental protocol and has virtual_hosts: true in its node's metadata, as the mesh's own do, is sent virtual hosts on their
own (VHDS): a rule's edit moves the one of its service. All others get whole route configurations.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), o.logLevel)
			if err != nil {
				return err
			}
			if err := o.complete(); err != nil {
				return usageError{err}
			}
			return runPilot(cmd.Context(), o, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; without it the pod's own service account is used")
	f.StringVar(&o.meshConfig, "mesh-config", "", "file with the mesh configuration; without it key mesh of ConfigMap istio is used and followed")
	f.StringVarP(&o.namespace, "namespace", "n", "", "the control plane's namespace (default $POD_NAMESPACE, else istio-system)")
	f.StringVar(&o.domain, "domain", "cluster.local", "DNS suffix of the cluster")
	f.StringVar(&o.name, "name", "", "name of this instance (default $POD_NAME, else the host's name)")
	f.StringVar(&o.xdsAddress, "xds-address", ":15012", "address to serve proxies on, with TLS")
	f.StringVar(&o.debugXDS, "debug-xds-address", "", "loopback address to serve xDS on in plaintext to anybody; off when empty")
	f.StringVar(&o.debugAddress, "debug-address", "127.0.0.1:15014", "loopback address to serve /debug/proxies on, with TLS")
	f.StringVar(&o.healthAddr, "health-address", ":15021", "address to serve /healthz, /ready and /metrics on")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&o.writeStatus, "write-status", true, "write the status of mesh objects and Ingresses")
	return cmd
}

// complete fills in what the environment says and checks what can be checked without the cluster.
func (o *pilotOptions) complete() error {
	if o.namespace == "" {
		o.namespace = os.Getenv("POD_NAMESPACE")
	}
	if o.namespace == "" {
		o.namespace = "istio-system"
	}
	if o.name == "" {
		o.name = os.Getenv("POD_NAME")
	}
	if o.name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("finding a name for this instance: %w; give one with --name", err)
		}
		o.name = host
	}
	if o.debugXDS != "" {
		if err := serve.RequireLoopback(o.debugXDS); err != nil {
			return fmt.Errorf("--debug-xds-address: %w", err)
		}
	}
	if err := serve.RequireLoopback(o.debugAddress); err != nil {
		return fmt.Errorf("--debug-address: %w", err)
	}
	return nil
}

// restConfig is the way to the API server.
func (o *pilotOptions) restConfig() (*rest.Config, error) {
	var config *rest.Config
	var err error
	if o.kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	} else {
		config, err = rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("this is no pod of a cluster: give --kubeconfig")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 100, 200
	config.UserAgent = "meshd-pilot/" + version.Version
	return config, nil
}

// limited is the same way to the API server with a rate of its own.
func limited(config *rest.Config, perSecond float32, burst int) *rest.Config {
	own := rest.CopyConfig(config)
	own.QPS, own.Burst, own.RateLimiter = perSecond, burst, nil
	return own
}

// certificateLifetime is short: renewal is a matter of a handshake.
const certificateLifetime = 24 * time.Hour

// runPilot is the role's wiring table.
func runPilot(ctx context.Context, o *pilotOptions, log *slog.Logger) error {
	log.Info("starting", "version", version.Version, "revision", version.Get().GitRevision, "memoryLimit", serve.LimitMemory())
	config, err := o.restConfig()
	if err != nil {
		return err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("preparing the Kubernetes client: %w", err)
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("preparing the Kubernetes client: %w", err)
	}
	// Anybody who reaches Pilot can have tokens reviewed; the rate of that is not taken from what Pilot lives on.
	reviewing, err := kubernetes.NewForConfig(limited(config, 50, 100))
	if err != nil {
		return fmt.Errorf("preparing the Kubernetes client: %w", err)
	}
	settings, err := newSettings(o, log)
	if err != nil {
		return err
	}

	// Listeners first: a port that is taken is noticed before anything else happens.
	listeners := map[string]net.Listener{}
	for name, address := range map[string]string{"xds": o.xdsAddress, "debug": o.debugAddress, "health": o.healthAddr, "debug-xds": o.debugXDS} {
		if address == "" {
			continue
		}
		l, err := serve.Listen(address)
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		listeners[name] = l
		log.Info("listening", "server", name, "address", l.Addr().String())
	}

	authority, err := loadRoot(ctx, kube, o.namespace, log)
	if err != nil {
		return err
	}
	serving, err := keystore.NewServing(authority, pilotNames(o.namespace, o.domain), []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, certificateLifetime)
	if err != nil {
		return err
	}
	publisher, err := keystore.NewPublisher(kube, authority.RootPEM(), log)
	if err != nil {
		return fmt.Errorf("preparing to publish the root certificate: %w", err)
	}
	watcher, err := watch.New(watch.Config{Kube: kube, Dynamic: dyn, Namespace: o.namespace, ConfigMap: settings.configMap(), Manager: fieldManager, Log: log})
	if err != nil {
		return err
	}
	p := &pilot{options: o, log: log, settings: settings, translator: newTranslator()}
	p.admission = &identity.Admission{Pods: watcher.Pod, Namespace: o.namespace, Wait: 5 * time.Second, Log: log}
	p.xds = xds.New(xds.Config{Pilot: o.name, Progress: p.progressed, Rejected: p.rejected, Log: log})
	p.metrics = newPilotMetrics(p.xds)
	if o.writeStatus {
		if p.status, err = newStatusWriter(config, p, watcher); err != nil {
			return err
		}
	}

	xdsOptions, err := xds.Options()
	if err != nil {
		return err
	}
	secure := grpc.NewServer(append(xdsOptions,
		grpc.Creds(credentials.NewTLS(serving.TLSConfig())),
		grpc.StreamInterceptor(identity.StreamInterceptor(identity.NewReviews(reviewing, time.Now), log)))...)
	p.xds.Register(secure, p.admission.Admit)

	components := []serve.Component{
		serve.HTTP("health", listeners["health"], serve.Health(p.metrics.registry, watcher.Waiting, p.waiting), nil, log),
		{Name: "root publisher", Run: publisher.Run},
		{Name: "watcher", Run: func(ctx context.Context) error { return watcher.Run(ctx, p.update) }},
		serve.HTTP("debug", listeners["debug"], p.debugHandler(), serving.TLSConfig(), log),
		serve.GRPC("xds", listeners["xds"], secure),
	}
	if p.status != nil {
		components = append(components, serve.Component{Name: "status writer", Run: p.status.Run})
	}
	if l := listeners["debug-xds"]; l != nil {
		open := grpc.NewServer(xdsOptions...)
		p.xds.Register(open, identity.Trusting)
		components = append(components, serve.GRPC("debug xds", l, open))
		log.Warn("serving xDS in plaintext to anybody on this machine", "address", o.debugXDS)
	}
	return serve.Run(ctx, log, 10*time.Second, components...)
}

// loadRoot waits for the API server: at the start of a cluster Pilot may well be the first.
func loadRoot(ctx context.Context, kube kubernetes.Interface, namespace string, log *slog.Logger) (*keystore.Authority, error) {
	for {
		a, err := keystore.Load(ctx, kube, namespace, time.Now)
		if err == nil || errors.Is(err, keystore.ErrUnusable) {
			return a, err
		}
		log.Warn("waiting for the root", "error", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Second):
		}
	}
}

// pilotNames are the names by which Pilot is called; localhost is for port-forwards.
func pilotNames(namespace, domain string) []string {
	service := "istio-pilot." + namespace
	return []string{service + ".svc", service, service + ".svc." + domain, "istio-pilot", "localhost"}
}

// debugHandler answers /debug/proxies.
func (p *pilot) debugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/proxies", func(w http.ResponseWriter, _ *http.Request) {
		list := proxystatus.List{Pilot: p.options.name, Proxies: p.xds.Proxies()}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(list); err != nil {
			p.log.Debug("answering /debug/proxies", "error", err)
		}
	})
	return mux
}
