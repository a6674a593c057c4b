package agent

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/capture"
)

// captureFlags are the flags of init as they are typed. The short names are those of 0.2's script, and further ones of its successors.
type captureFlags struct {
	port, inboundPort, uid, gid     int
	include, exclude                string
	excludeInbound, excludeOutbound string
	dryRun                          bool
}

func newInit(s Streams) *cobra.Command {
	var f captureFlags
	cmd := &cobra.Command{
		Use:   "init -p PORT -u UID",
		Short: "Capture the pod's traffic",
		Long:  "Set the firewall rules that send the pod's traffic through its proxy. Running it again changes nothing.",
		Example: `  # As the init container runs it
  meshagent init -p 15001 -u 1337

  # Show the rules
  meshagent init -p 15001 -u 1337 --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.config()
			if err != nil {
				return fmt.Errorf("%w (%w)", err, errUsage)
			}
			if f.dryRun {
				for _, family := range []capture.Family{capture.IPv4(), capture.IPv6()} {
					if _, err := fmt.Fprintf(s.Out, "# %s\n%s", family, capture.Rules(c, family, "")); err != nil {
						return err
					}
				}
				return nil
			}
			return capture.Apply(cmd.Context(), c, newLog(s.Err, 0))
		},
	}
	fl := cmd.Flags()
	fl.IntVarP(&f.port, "port", "p", 15001, "port of the proxy for outbound traffic")
	fl.IntVarP(&f.inboundPort, "inbound-port", "z", 15006, "port of the proxy for inbound traffic")
	fl.IntVarP(&f.uid, "uid", "u", 1337, "user of the proxy, whose own traffic is not captured")
	fl.IntVarP(&f.gid, "gid", "g", 1337, "group of the proxy, whose own traffic is not captured")
	fl.StringVarP(&f.include, "include-ranges", "i", "", "outbound IP ranges to capture, separated by commas; all when empty or *")
	fl.StringVarP(&f.exclude, "exclude-ranges", "x", "", "outbound IP ranges not to capture, separated by commas")
	fl.StringVarP(&f.excludeInbound, "exclude-inbound-ports", "d", "", "inbound ports not to capture, separated by commas")
	fl.StringVarP(&f.excludeOutbound, "exclude-outbound-ports", "o", "", "outbound ports not to capture, separated by commas")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the rules instead of setting them")
	return cmd
}

func (f captureFlags) config() (capture.Config, error) {
	c := capture.Config{OutboundPort: f.port, InboundPort: f.inboundPort, UID: f.uid, GID: f.gid}
	for flag, port := range map[string]int{"--port": f.port, "--inbound-port": f.inboundPort} {
		if port < 1 || port > 65535 {
			return c, fmt.Errorf("%s %d is not a port", flag, port)
		}
	}
	if f.uid <= 0 || f.gid < 0 {
		return c, fmt.Errorf("--uid %d: the proxy's own traffic cannot be told from root's", f.uid)
	}
	var err error
	if c.IncludeRanges, err = ranges("--include-ranges", strings.TrimSpace(f.include)); err != nil {
		return c, err
	}
	if c.ExcludeRanges, err = ranges("--exclude-ranges", f.exclude); err != nil {
		return c, err
	}
	if c.ExcludeInboundPorts, err = ports("--exclude-inbound-ports", f.excludeInbound); err != nil {
		return c, err
	}
	c.ExcludeOutboundPorts, err = ports("--exclude-outbound-ports", f.excludeOutbound)
	return c, err
}

func ranges(flag, list string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	if list == "*" {
		return nil, nil
	}
	for word := range words(list) {
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not an IP range such as 10.0.0.0/8", flag, word)
		}
		out = append(out, p)
	}
	return out, nil
}

func ports(flag, list string) ([]int, error) {
	var out []int
	for word := range words(list) {
		p, err := strconv.Atoi(word)
		if err != nil || p < 1 || p > 65535 {
			return nil, fmt.Errorf("%s: %q is not a port", flag, word)
		}
		out = append(out, p)
	}
	return out, nil
}

// words are the members of a comma list; an empty list has none.
func words(list string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for word := range strings.SplitSeq(list, ",") {
			if word = strings.TrimSpace(word); word != "" && !yield(word) {
				return
			}
		}
	}
}
