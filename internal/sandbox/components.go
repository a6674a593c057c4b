package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/meshctl/meshctl/internal/image"
)

// at is a path in the state directory as seen from inside.
func at(elem ...string) string { return filepath.Join(append([]string{inside}, elem...)...) }

// A sandbox starts from nothing every time, so nothing in etcd is worth waiting for the disk.
const etcdClient, etcdPeer = "unix:///run/etcd.sock:0", "unix:///run/etcd-peer.sock:0"

const containerdSocket = "/run/containerd/containerd.sock"

// writeIdentities makes the certificates of the cluster and a kubeconfig for everyone who calls the API.
func writeIdentities(s settings, apiURL string) error {
	ca, err := NewAuthority(at("pki"))
	if err != nil {
		return err
	}
	if err := ca.SigningKey("sa"); err != nil {
		return err
	}
	serving := Identity{
		User:  "kube-apiserver",
		Names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain},
		IPs:   []string{"127.0.0.1", s.NodeIP, apiServiceIP},
	}
	if s.IPv6 {
		serving.IPs = append(serving.IPs, nodeIPv6)
	}
	identities := map[string]Identity{
		"apiserver":               serving,
		"apiserver-kubelet":       {User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		"admin":                   {User: "admin", Groups: []string{"system:masters"}},
		"kube-controller-manager": {User: "system:kube-controller-manager"},
		"kube-scheduler":          {User: "system:kube-scheduler"},
		"kube-proxy":              {User: "system:kube-proxy"},
		"coredns":                 {User: "system:coredns"},
		"kubelet":                 {User: "system:node:" + nodeName, Groups: []string{"system:nodes"}, Names: []string{nodeName}, IPs: []string{"127.0.0.1", s.NodeIP}},
	}
	local := "https://127.0.0.1:" + apiPort
	for name, id := range identities {
		if err := ca.Issue(name, id); err != nil {
			return err
		}
		if err := ca.Kubeconfig(at("pki", name+".kubeconfig"), local, name, ""); err != nil {
			return err
		}
	}
	kubeconfig := state(inside).kubeconfig()
	if err := ca.Kubeconfig(kubeconfig, apiURL, "admin", "default"); err != nil {
		return err
	}
	return os.Chown(kubeconfig, s.Owner.UID, s.Owner.GID)
}

// both joins the values of the two address families.
func (s settings) both(v4, v6 string) string {
	if s.IPv6 {
		return v4 + "," + v6
	}
	return v4
}

func etcdArgs() []string {
	return []string{
		"--name=default", "--data-dir=" + at("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=" + etcdClient, "--advertise-client-urls=" + etcdClient,
		"--listen-peer-urls=" + etcdPeer, "--initial-advertise-peer-urls=" + etcdPeer, "--initial-cluster=default=" + etcdPeer,
	}
}

func (s settings) apiserverArgs() []string {
	return []string{
		"--etcd-servers=" + etcdClient,
		"--secure-port=" + apiPort, "--advertise-address=" + s.NodeIP,
		"--tls-cert-file=" + at("pki/apiserver.crt"), "--tls-private-key-file=" + at("pki/apiserver.key"),
		"--client-ca-file=" + at("pki/ca.crt"),
		"--kubelet-certificate-authority=" + at("pki/ca.crt"),
		"--kubelet-client-certificate=" + at("pki/apiserver-kubelet.crt"), "--kubelet-client-key=" + at("pki/apiserver-kubelet.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc." + clusterDomain,
		"--service-account-signing-key-file=" + at("pki/sa.key"), "--service-account-key-file=" + at("pki/sa.pub"),
		"--service-cluster-ip-range=" + s.both(serviceCIDR, serviceCIDRv6),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", "--enable-bootstrap-token-auth=false", "--profiling=false",
	}
}

func (s settings) controllerArgs() []string {
	return []string{
		"--kubeconfig=" + at("pki/kube-controller-manager.kubeconfig"),
		"--authentication-kubeconfig=" + at("pki/kube-controller-manager.kubeconfig"),
		"--authorization-kubeconfig=" + at("pki/kube-controller-manager.kubeconfig"),
		"--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false",
		"--use-service-account-credentials=true",
		"--root-ca-file=" + at("pki/ca.crt"), "--service-account-private-key-file=" + at("pki/sa.key"),
		"--cluster-signing-cert-file=" + at("pki/ca.crt"), "--cluster-signing-key-file=" + at("pki/ca.key"),
		"--cluster-cidr=" + s.both(podCIDR, podCIDRv6), "--allocate-node-cidrs=false",
		"--service-cluster-ip-range=" + s.both(serviceCIDR, serviceCIDRv6),
		// Someone waits for the first node to be let in.
		"--node-monitor-period=500ms",
		// A laboratory's deployments are watched by someone who waits.
		"--concurrent-deployment-syncs=10", "--concurrent-replicaset-syncs=10",
		"--kube-api-qps=1000", "--kube-api-burst=2000",
	}
}

func schedulerArgs() []string {
	return []string{
		"--kubeconfig=" + at("pki/kube-scheduler.kubeconfig"),
		"--authentication-kubeconfig=" + at("pki/kube-scheduler.kubeconfig"),
		"--authorization-kubeconfig=" + at("pki/kube-scheduler.kubeconfig"),
		"--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false",
		"--kube-api-qps=1000", "--kube-api-burst=2000",
	}
}

func (s settings) proxyArgs() []string { return []string{"--config=" + at("kube-proxy.yaml")} }

func (s settings) kubeletArgs() []string {
	nodeIP := s.both(s.NodeIP, nodeIPv6)
	return []string{
		"--config=" + at("kubelet.yaml"), "--kubeconfig=" + at("pki/kubelet.kubeconfig"),
		"--root-dir=" + at("kubelet"), "--hostname-override=" + nodeName, "--node-ip=" + nodeIP,
	}
}

func corednsArgs() []string { return []string{"-conf", at("Corefile")} }

// writeConfigs writes the configuration files of the components.
func writeConfigs(s settings) error {
	files := map[string]string{
		"containerd.toml":         s.containerdConfig(),
		"cni/10-meshbox.conflist": s.cniConfig(),
		"kubelet.yaml":            s.kubeletConfig(),
		"kube-proxy.yaml":         s.proxyConfig(),
		"Corefile":                s.corefile(),
	}
	for name, content := range files {
		path := at(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// linkIPTables gives the multi-call program its names.
func linkIPTables(program string) error {
	if err := os.MkdirAll(at("bin"), 0o755); err != nil {
		return err
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, tool := range []string{"", "-save", "-restore"} {
			if err := os.Symlink(program, at("bin", family+tool)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s settings) containerdConfig() string {
	return fmt.Sprintf(`version = 2
root = %q
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = %q
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = %q
restrict_oom_score_adj = %t
disable_apparmor = true
stream_server_address = "127.0.0.1"
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = %q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = %q
`, at("containerd"), containerdSocket, image.Pause, s.ShareOOM, s.Snapshotter, s.Programs.CNI, at("cni"))
}

func (s settings) cniConfig() string {
	ranges := fmt.Sprintf(`[{"subnet": %q}]`, podCIDR)
	routes := `{"dst": "0.0.0.0/0"}`
	if s.IPv6 {
		ranges += fmt.Sprintf(`, [{"subnet": %q}]`, podCIDRv6)
		routes += `, {"dst": "::/0"}`
	}
	return fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "meshbox", "plugins": [{
  "type": "ptp", "ipMasq": false, "mtu": 1500,
  "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [%s], "routes": [%s]}
}]}
`, ranges, routes)
}

func (s settings) kubeletConfig() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %s
port: 10250
healthzBindAddress: 127.0.0.1
tlsCertFile: %s
tlsPrivateKeyFile: %s
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %s}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://%s
clusterDomain: %s
clusterDNS: [%s]
resolvConf: %s
podLogsDir: /var/log/pods
staticPodPath: ""
# Version 1 still works and is what older machines have.
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: true
enforceNodeAllocatable: []
oomScoreAdj: 0
# The disk, swap and images are the machine's affair: a laboratory evicts nothing and collects no images.
localStorageCapacityIsolation: false
failSwapOn: false
evictionHard: {memory.available: "0%%", nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
# Changes show at once, not after the minute that saves a large cluster's API server.
configMapAndSecretChangeDetectionStrategy: Watch
syncFrequency: 10s
nodeStatusUpdateFrequency: 10s
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
kubeAPIQPS: 500
kubeAPIBurst: 1000
maxPods: 200
shutdownGracePeriod: 0s
`, s.NodeIP, at("pki/kubelet.crt"), at("pki/kubelet.key"), at("pki/ca.crt"), containerdSocket, clusterDomain, dnsServiceIP, at("resolv.conf"))
}

func (s settings) proxyConfig() string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %s}
mode: iptables
clusterCIDR: %s
hostnameOverride: %s
bindAddress: 0.0.0.0
healthzBindAddress: ""
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
# These sizes are the machine's, not the namespace's.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 100ms, syncPeriod: 30s}
`, at("pki/kube-proxy.kubeconfig"), s.both(podCIDR, podCIDRv6), nodeName)
}

// corefile answers for the cluster and denies the rest at once: there is no way out of the sandbox, and a resolver that waits would hide that.
// The rest has a block of its own because CoreDNS asks its plugins in an order that is compiled in, and template comes first.
func (s settings) corefile() string {
	zones := []string{clusterDomain + ":53", "in-addr.arpa:53"}
	if s.IPv6 {
		zones = append(zones, "ip6.arpa:53")
	}
	return fmt.Sprintf(`%[1]s {
    bind %[2]s
    errors
    ready 127.0.0.1:8181
    kubernetes %[3]s in-addr.arpa ip6.arpa {
        kubeconfig %[4]s
        pods insecure
        ttl 5
    }
    loadbalance
}
.:53 {
    bind %[2]s
    template ANY ANY {
        rcode NXDOMAIN
    }
}
`, strings.Join(zones, " "), s.NodeIP, clusterDomain, at("pki/coredns.kubeconfig"))
}
