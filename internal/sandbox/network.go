package sandbox

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// machineIP is the IPv4 address under which the machine knows itself. The node takes the same address inside its own network namespace,
// where it collides with nothing, and a port offered there on both sides makes http://HOSTIP:NODEPORT mean the same in and outside.
func machineIP() (netip.Addr, bool) {
	var candidates []net.Addr
	// Connecting a datagram socket sends nothing and tells which address the machine would speak from.
	if conn, err := net.Dial("udp4", "198.51.100.1:9"); err == nil {
		candidates = append(candidates, conn.LocalAddr())
		conn.Close()
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		candidates = append(candidates, addrs...)
	}
	for _, c := range candidates {
		var ip net.IP
		switch c := c.(type) {
		case *net.UDPAddr:
			ip = c.IP
		case *net.IPNet:
			ip = c.IP
		}
		addr, ok := netip.AddrFromSlice(ip)
		addr = addr.Unmap()
		if ok && addr.Is4() && addr.IsGlobalUnicast() && !inSandboxRanges(addr) {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// setUpNetwork makes the node's network, from inside its network namespace: loopback, one device with the node's addresses, and routes.
// Nothing is ever sent to the service ranges, but without a route the kernel refuses to connect there before kube-proxy's rules can
// translate the address; all else is refused at once, as there is no way out. Pods get point-to-point devices, not a bridge: every packet
// between pods is routed, so the translation of service addresses also works between pods, without the br_netfilter module.
func setUpNetwork(s settings) error {
	addrs, services, rest := []string{s.NodeIP + "/32"}, []string{serviceCIDR}, []string{"0.0.0.0/0"}
	sysctls := []string{"ipv4/ip_forward"}
	if s.IPv6 {
		addrs, services, rest = append(addrs, nodeIPv6+"/128"), append(services, serviceCIDRv6), append(rest, "::/0")
		sysctls = append(sysctls, "ipv6/conf/all/forwarding", "ipv6/conf/default/forwarding")
	}
	for _, name := range sysctls {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil {
			return fmt.Errorf("setting sysctl: %w", err)
		}
	}
	// A pair of which only one end is used: unlike a dummy device it needs no module that pods do not need anyway.
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "node0"}, PeerName: "node1"}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("making the node's device: %w (modprobe veth)", err)
	}
	links := map[string]netlink.Link{}
	for _, name := range []string{"lo", "node0", "node1"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding device %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("setting up device %s: %w", name, err)
		}
		links[name] = link
	}
	node := links["node0"]
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		// There is no neighbour to ask whether an address is taken, and asking takes a second.
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(node, addr); err != nil {
			return fmt.Errorf("giving the node address %s: %w", a, err)
		}
	}
	for _, cidr := range services {
		if err := addRoute(cidr, netlink.Route{LinkIndex: node.Attrs().Index, Scope: netlink.SCOPE_LINK}); err != nil {
			return err
		}
	}
	for _, cidr := range rest {
		if err := addRoute(cidr, netlink.Route{Type: unix.RTN_UNREACHABLE}); err != nil {
			return err
		}
	}
	return nil
}

func addRoute(cidr string, route netlink.Route) error {
	_, dst, err := net.ParseCIDR(cidr)
	if err != nil {
		return err
	}
	route.Dst = dst
	if err := netlink.RouteAdd(&route); err != nil {
		return fmt.Errorf("making the route to %s: %w", cidr, err)
	}
	return nil
}
