package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Apply puts the rules into the network namespace of the process, for every family the pod has. It needs the capabilities NET_ADMIN and NET_RAW.
func Apply(ctx context.Context, c Config, log *slog.Logger) error {
	for _, f := range []Family{IPv4(), IPv6()} {
		addressed, err := addresses(f)
		if err != nil {
			return err
		}
		backend, err := apply(ctx, c, f)
		if err == nil {
			err = addSource(f)
		}
		switch {
		case err == nil:
			log.Info("traffic is captured", "family", f, "with", backend)
		case addressed:
			// Going on would mean traffic that silently passes by the mesh.
			return fmt.Errorf("capturing %s traffic: %w", f, err)
		default:
			log.Info("no traffic to capture: the pod has no address of the family", "family", f)
		}
	}
	return nil
}

// addresses says whether the pod has an address of the family that others can reach it by.
func addresses(f Family) (bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false, fmt.Errorf("reading the pod's addresses: %w", err)
	}
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.IsGlobalUnicast() && (n.IP.To4() != nil) == f.loopback.Addr().Is4()
	}), nil
}

// addSource gives the pod the address that traffic handed on unchanged comes from. All of 127.0.0.0/8 is there anyway.
func addSource(f Family) error {
	if f.passthrough.Addr().Is4() {
		return nil
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrReplace(lo, &netlink.Addr{
			IPNet: &net.IPNet{IP: f.passthrough.Addr().AsSlice(), Mask: net.CIDRMask(f.passthrough.Bits(), f.passthrough.Addr().BitLen())},
			Flags: unix.IFA_F_NODAD,
		})
	}
	if err != nil {
		return fmt.Errorf("adding %s to the loopback interface: %w", f.passthrough, err)
	}
	return nil
}

// backend is one way of reaching the kernel's firewall.
type backend struct {
	name string
	// save and restore are the programs, with leading arguments.
	save, restore []string
}

// backends in the order they are tried. nftables is first: a kernel of today has it, and may lack the other.
func backends(f Family) []backend {
	p := f.programs
	return []backend{
		{"nftables", []string{p + "-nft-save"}, []string{p + "-nft-restore"}},
		{"nftables", []string{"xtables-nft-multi", p + "-save"}, []string{"xtables-nft-multi", p + "-restore"}},
		{"legacy tables", []string{p + "-legacy-save"}, []string{p + "-legacy-restore"}},
		{"legacy tables", []string{"xtables-legacy-multi", p + "-save"}, []string{"xtables-legacy-multi", p + "-restore"}},
		{"the default tables", []string{p + "-save"}, []string{p + "-restore"}},
	}
}

// apply tries each backend until one takes the rules. A restore is all or nothing, so one that fails leaves nothing behind.
func apply(ctx context.Context, c Config, f Family) (string, error) {
	var tried []error
	for _, b := range backends(f) {
		if _, err := exec.LookPath(b.restore[0]); err != nil {
			continue
		}
		err := b.apply(ctx, c, f)
		if err == nil {
			return b.name, nil
		}
		tried = append(tried, fmt.Errorf("with %s: %w", b.name, err))
	}
	if len(tried) == 0 {
		return "", fmt.Errorf("no %s-restore is installed", f.programs)
	}
	return "", errors.Join(tried...)
}

func (b backend) apply(ctx context.Context, c Config, f Family) error {
	saved, err := run(ctx, "", b.save, "-t", "nat")
	if err != nil {
		return fmt.Errorf("reading the rules: %w", err)
	}
	if _, err := run(ctx, Rules(c, f, saved), b.restore, "--noflush"); err != nil {
		return fmt.Errorf("writing the rules: %w", err)
	}
	// A backend can take rules that another one's kernel part never sees; what counts is that they are there.
	saved, err = run(ctx, "", b.save, "-t", "nat")
	if err != nil {
		return fmt.Errorf("reading the rules back: %w", err)
	}
	for _, jump := range jumps() {
		if n := strings.Count(saved, "-A "+jump+"\n"); n != 1 {
			return fmt.Errorf("reading the rules back: %q is there %d times", jump, n)
		}
	}
	return nil
}

func run(ctx context.Context, stdin string, program []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program[0], append(slices.Clone(program[1:]), args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	// The lock file's usual place is on the root file system, which is read-only in a pod.
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE=/dev/shm/xtables.lock")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(program, " "), err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	return stdout.String(), nil
}
