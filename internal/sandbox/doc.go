// Package sandbox runs a whole Kubernetes of one node inside Linux namespaces of its own, and takes it away without a trace.
//
// In goes a state directory and the programs (bin/meshbox, containerd, runc, CNI plugins, iptables); out comes a kubeconfig and ports on
// loopback. One supervisor process is PID 1 of new PID, mount, network, UTS, IPC and cgroup namespaces and every component and container is
// its descendant there: when it ends, in whatever way, the kernel ends all of them and the namespaces vanish with their mounts, devices
// and firewall rules. Only directories can remain, and Down removes those.
package sandbox
