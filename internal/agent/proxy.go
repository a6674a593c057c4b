package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshctl/meshctl/internal/envoy/bootstrap"
	"github.com/meshctl/meshctl/internal/meshconfig"
	"github.com/meshctl/meshctl/internal/version"
	"github.com/meshctl/meshctl/internal/xds/relay"
)

// proxyOptions are the flags of proxy. Names and defaults are 0.2's where they still mean something.
type proxyOptions struct {
	role string
	meshconfig.Proxy
	verbosity       int
	ip, id, domain  string
	rootCert, token string
	statusPort      int
	concurrency     int
	minDrain        time.Duration
}

// Obsolete flags are accepted, so that 0.2's manifests start, and have no effect.
func obsolete() []string {
	return []string{"serviceregistry", "discoveryRefreshDelay", "zipkinAddress", "connectTimeout", "controlPlaneAuthPolicy", "customConfigFile"}
}

func newProxy(s Streams) *cobra.Command {
	o := proxyOptions{Proxy: meshconfig.Default("istio-system").DefaultConfig}
	cmd := &cobra.Command{
		Use:   "proxy [sidecar|ingress|egress]",
		Short: "Run the pod's proxy",
		Long:  "Start Envoy, carry its configuration from Pilot, watch it, and drain it at the end.",
		Example: `  # As the sidecar's container runs it
  meshagent proxy sidecar --serviceCluster reviews --discoveryAddress istio-pilot.istio-system:15012`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && !slices.Contains([]string{"sidecar", "ingress", "egress"}, args[0]) {
				return fmt.Errorf("%q is not one of sidecar, ingress, egress (%w)", strings.Join(args, " "), errUsage)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.IntVarP(&o.verbosity, "v", "v", 0, "verbosity: above 2 the agent, above 3 Envoy too, tell details")
	fl.StringVar(&o.ConfigPath, "configPath", o.ConfigPath, "directory for the configuration, writable")
	fl.StringVar(&o.BinaryPath, "binaryPath", o.BinaryPath, "the Envoy program")
	fl.StringVar(&o.ServiceCluster, "serviceCluster", o.ServiceCluster, "name of the workload in Envoy's statistics")
	fl.DurationVar(&o.DrainDuration, "drainDuration", o.DrainDuration, "how long requests under way are waited for at the end")
	fl.DurationVar(&o.ParentShutdownDuration, "parentShutdownDuration", o.ParentShutdownDuration, "when at the latest Envoy is stopped")
	fl.StringVar(&o.DiscoveryAddress, "discoveryAddress", o.DiscoveryAddress, "Pilot, host:port")
	fl.StringVar(&o.StatsdUDPAddress, "statsdUdpAddress", o.StatsdUDPAddress, "where Envoy sends statistics, host:port; nowhere when empty")
	fl.IntVar(&o.ProxyAdminPort, "proxyAdminPort", o.ProxyAdminPort, "port of Envoy's administration, on 127.0.0.1")
	fl.StringVar(&o.AvailabilityZone, "availabilityZone", o.AvailabilityZone, "zone the proxy runs in")
	fl.StringVar(&o.ip, "ip", "", "address of the pod; $INSTANCE_IP when not given")
	fl.StringVar(&o.id, "id", "", "name of the proxy; $POD_NAME.$POD_NAMESPACE when not given")
	fl.StringVar(&o.domain, "domain", "", "DNS domain of the pod; $POD_NAMESPACE.svc.cluster.local when not given")
	fl.IntVar(&o.concurrency, "concurrency", 0, "Envoy's worker threads; by the container's CPU limit when 0, two at most without a limit")
	fl.StringVar(&o.rootCert, "rootCert", "/etc/istio/root/root-cert.pem", "certificates that may sign Pilot's")
	fl.StringVar(&o.token, "token", "/var/run/secrets/tokens/istio-token", "token that proves the workload to Pilot")
	fl.IntVar(&o.statusPort, "statusPort", 15021, "port for /healthz/ready and /metrics")
	fl.DurationVar(&o.minDrain, "minDrainDuration", 0, "how long draining takes at least; a second for a sidecar, five for a gateway when 0")
	for _, name := range obsolete() {
		fl.String(name, "", "")
		fl.Lookup(name).Hidden = true
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.role = "sidecar"
		if len(args) > 0 {
			o.role = args[0]
		}
		log := newLog(s.Err, o.verbosity)
		var unused []string
		fl.Visit(func(f *pflag.Flag) {
			if slices.Contains(obsolete(), f.Name) && f.Value.String() != "" {
				unused = append(unused, "--"+f.Name)
			}
		})
		if len(unused) > 0 {
			log.Info("flags without effect in this version", "flags", strings.Join(unused, " "))
		}
		if err := o.complete(s.Getenv); err != nil {
			return fmt.Errorf("%w (%w)", err, errUsage)
		}
		return o.run(cmd.Context(), s, log)
	}
	return cmd
}

// complete fills in what the environment says and refuses what cannot be.
func (o *proxyOptions) complete(getenv func(string) string) error {
	name, namespace := getenv("POD_NAME"), getenv("POD_NAMESPACE")
	o.ip = cmp.Or(o.ip, getenv("INSTANCE_IP"))
	if o.id == "" {
		if name == "" || namespace == "" {
			return errors.New("who is this? set POD_NAME and POD_NAMESPACE, or --id")
		}
		o.id = name + "." + namespace
	}
	if o.domain == "" && namespace != "" {
		o.domain = namespace + ".svc.cluster.local"
	}
	if o.ip == "" {
		o.ip = firstAddress()
	}
	if _, err := netip.ParseAddr(o.ip); err != nil {
		return fmt.Errorf("%q is not the pod's address; set INSTANCE_IP or --ip", o.ip)
	}
	if o.minDrain == 0 {
		o.minDrain = time.Second
		if o.role != "sidecar" {
			// Callers from outside learn only after a while that a gateway is leaving.
			o.minDrain = 5 * time.Second
		}
	}
	if _, _, err := net.SplitHostPort(o.DiscoveryAddress); err != nil {
		return fmt.Errorf("--discoveryAddress %q is not host:port", o.DiscoveryAddress)
	}
	if o.DrainDuration < 0 || o.ParentShutdownDuration <= o.DrainDuration {
		return fmt.Errorf("--parentShutdownDuration %s is not longer than --drainDuration %s", o.ParentShutdownDuration, o.DrainDuration)
	}
	if o.concurrency < 0 {
		return fmt.Errorf("--concurrency %d is not a number of threads", o.concurrency)
	}
	if o.concurrency == 0 {
		o.concurrency = concurrency(os.DirFS("/"))
	}
	return nil
}

func firstAddress() string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}

func (o *proxyOptions) run(ctx context.Context, s Streams, log *slog.Logger) error {
	log.Info("starting", "role", o.role, "id", o.id, "ip", o.ip, "pilot", o.DiscoveryAddress, "concurrency", o.concurrency, "version", version.Version)
	carrier := relay.New(relay.Config{
		Socket: filepath.Join(o.ConfigPath, "xds.sock"), CacheFile: filepath.Join(o.ConfigPath, "xds-cache"),
		Address: o.DiscoveryAddress, ServerName: serverName(o.DiscoveryAddress, namespaceOf(o.domain)),
		RootFile: o.rootCert, TokenFile: o.token, Log: log,
	})
	admin := admin{port: o.ProxyAdminPort}
	health := &health{admin: admin, relay: carrier}
	supervisor := &supervisor{binary: o.BinaryPath, args: o.envoyArgs(), out: s.Out, err: s.Err, log: log, restarts: &health.restarts, pause: sleep}

	// What runs here outlives ctx: ctx is the order to stop, which begins with draining.
	alive, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	failed := make(chan error, 5)
	background := func(what string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(alive); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}

	background("serving health", func(ctx context.Context) error { return health.serve(ctx, o.statusPort) })
	background("handing on signals", func(ctx context.Context) error { forward(ctx, supervisor.signal); return nil })
	if os.Getpid() == 1 {
		background("reaping", func(ctx context.Context) error { reap(ctx, supervisor.pid); return nil })
	}
	if err := waitForFiles(ctx, log, failed, o.rootCert, o.token); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	listening := make(chan struct{})
	background("relaying", func(ctx context.Context) error { return carrier.Run(ctx, func() { close(listening) }) })
	select {
	case <-listening:
	case err := <-failed:
		return err
	}
	if err := o.writeBootstrap(log); err != nil {
		return err
	}
	background("running Envoy", supervisor.run)

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Info("draining", "atLeast", o.minDrain, "atMost", o.DrainDuration)
	health.draining.Store(true)
	drained := drain(alive, admin, o.minDrain, o.DrainDuration)
	log.Info("stopping Envoy", "drained", drained)
	supervisor.stop(o.ParentShutdownDuration - o.DrainDuration)
	return nil
}

func (o *proxyOptions) bootstrapFile() string { return filepath.Join(o.ConfigPath, "envoy.json") }

func (o *proxyOptions) writeBootstrap(log *slog.Logger) error {
	c := bootstrap.Config{
		NodeID:         strings.Join([]string{o.role, o.ip, o.id, o.domain}, "~"),
		ServiceCluster: o.ServiceCluster,
		Metadata:       map[string]any{"version": version.Version},
		Zone:           o.AvailabilityZone,
		AdminPort:      o.ProxyAdminPort,
		XDSSocket:      filepath.Join(o.ConfigPath, "xds.sock"),
		MaxConnections: bootstrap.MaxConnections,
	}
	if o.StatsdUDPAddress != "" {
		// Statistics are not worth a pod that does not start.
		if addr, err := net.ResolveUDPAddr("udp", o.StatsdUDPAddress); err != nil {
			log.Warn("Envoy sends no statistics", "to", o.StatsdUDPAddress, "reason", err)
		} else {
			c.StatsdUDP = addr.AddrPort()
		}
	}
	text, err := bootstrap.JSON(c)
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.bootstrapFile(), text, 0o600); err != nil {
		return fmt.Errorf("writing the bootstrap: %w", err)
	}
	return nil
}

func (o *proxyOptions) envoyArgs() []string {
	level := "warning"
	switch {
	case o.verbosity > 4:
		level = "debug"
	case o.verbosity > 3:
		level = "info"
	}
	return []string{
		"-c", o.bootstrapFile(),
		"--disable-hot-restart",
		"--concurrency", fmt.Sprint(o.concurrency),
		"--drain-time-s", fmt.Sprint(int(o.DrainDuration.Seconds())),
		"--drain-strategy", "immediate",
		"--log-level", level,
		"--skip-deprecated-logs",
	}
}

// waitForFiles returns when all files are there and have content. The kubelet mounts them, a moment late perhaps.
func waitForFiles(ctx context.Context, log *slog.Logger, failed <-chan error, files ...string) error {
	told := ""
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := slices.IndexFunc(files, func(f string) bool {
			info, err := os.Stat(f)
			return err != nil || info.Size() == 0
		})
		if missing < 0 {
			return nil
		}
		if told != files[missing] {
			told = files[missing]
			log.Info("waiting for a file", "file", told)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-tick.C:
		}
	}
}

func namespaceOf(domain string) string {
	namespace, _, _ := strings.Cut(domain, ".")
	return namespace
}

// serverName is what Pilot's certificate must be for: service.namespace.svc, whichever of its names Pilot is reached by.
func serverName(address, namespace string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	switch {
	case len(labels) == 1 && host != "localhost" && namespace != "":
		return host + "." + namespace + ".svc"
	case len(labels) == 2 || len(labels) >= 3 && labels[2] == "svc":
		return labels[0] + "." + labels[1] + ".svc"
	default:
		return strings.Join(labels, ".")
	}
}
