package sandbox

import (
	"net"
	"net/netip"
	"testing"
)

// connBetween is a connection of which only the ends matter.
type connBetween struct {
	net.Conn
	local, remote string
}

func (c connBetween) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.local))
}

func (c connBetween) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.remote))
}

func TestOnlyTheMachineItselfIsLetIn(t *testing.T) {
	for name, c := range map[string]struct {
		local, remote string
		want          bool
	}{
		"from loopback to loopback":           {"127.0.0.1:80", "127.0.0.1:40000", true},
		"from the machine to its own address": {"203.0.113.7:80", "203.0.113.7:40000", true},
		"from another machine":                {"203.0.113.7:80", "203.0.113.8:40000", false},
		"from another machine, mapped":        {"203.0.113.7:80", "[::ffff:203.0.113.8]:40000", false},
		"from a container of the machine":     {"203.0.113.7:80", "172.17.0.2:40000", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fromThisMachine(connBetween{local: c.local, remote: c.remote}); got != c.want {
				t.Errorf("let in: %v", got)
			}
		})
	}
}

func TestTheNodeTakesNoAddressThatPodsOrServicesHave(t *testing.T) {
	for addr, want := range map[string]bool{"10.244.0.9": true, "10.96.0.1": true, "10.97.0.1": false, "192.0.2.2": false} {
		if got := inSandboxRanges(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is in the sandbox's ranges: %v", addr, got)
		}
	}
}
