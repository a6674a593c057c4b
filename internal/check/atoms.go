package check

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
)

func isLabel(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }

// isFQDN takes dotted IPv4 addresses for host names too, as 0.2 did.
func isFQDN(s string) bool {
	return s != "" && len(s) <= 255 && !slices.ContainsFunc(strings.Split(s, "."), func(part string) bool { return !isLabel(part) })
}

// isEgressHost takes a host name, alone or behind one leading star that may be followed by a dot or a dash, an address or a subnet.
func isEgressHost(s string) bool {
	rest, wild := strings.CutPrefix(s, "*")
	if !wild {
		return isFQDN(s) || isAddress(s) || isSubnet(s)
	}
	if rest == "" {
		return true
	}
	if rest[0] == '.' || rest[0] == '-' {
		rest = rest[1:]
	}
	return isFQDN(rest)
}

const hostForm = "a host name is dot-separated words, at most with a star in front; it has no port"

func isAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == "" && !a.Is4In6()
}

func isSubnet(s string) bool {
	p, err := netip.ParsePrefix(s)
	return err == nil && !p.Addr().Is4In6()
}

// isLabelText is what 0.2 took for the key or value of a label.
func isLabelText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./", r)
	})
}

// atMost bounds how many entries a list or mapping has.
func (s *subject) atMost(path string, n, most int) {
	if n > most {
		s.error(finding.InvalidValue, path, fmt.Sprintf("%d entries are too many", n), fmt.Sprintf("there may be %d", most))
	}
}

// short bounds a text.
func (s *subject) short(path, text string) {
	if n := utf8.RuneCountInString(text); n > v1alpha2.MaxText {
		s.error(finding.InvalidValue, path, fmt.Sprintf("%d characters are too many", n), fmt.Sprintf("there may be %d", v1alpha2.MaxText))
	}
}

func (s *subject) labels(path string, labels map[string]string) {
	s.atMost(path, len(labels), v1alpha2.MaxLabels)
	for _, key := range sortedKeys(labels) {
		if !isLabelText(key) || !isLabelText(labels[key]) {
			s.error(finding.InvalidValue, finding.Child(path, key), fmt.Sprintf("%q: %q is no label", key, labels[key]), "use letters, digits, dashes, underscores, dots and slashes")
		}
	}
}

// service judges how a service is named. A caller may also be told by its namespace or its labels alone.
func (s *subject) service(path string, v v1alpha2.IstioService, caller bool) {
	switch {
	case v.Name == "" && v.Service == "":
		switch {
		case !caller:
			s.error(finding.Required, path, "the service is not named", "set name, or service for a full host name")
		case len(v.Labels) == 0 && v.Namespace == "":
			s.error(finding.Required, path, "it is not said who calls", "set name, namespace or labels")
		}
	case v.Name != "" && v.Service != "":
		s.error(finding.Conflict, finding.Child(path, "service"), "name and service exclude each other", "keep name for a service of the mesh, service for a full host name")
	case v.Service != "":
		if v.Namespace != "" {
			s.error(finding.Conflict, finding.Child(path, "namespace"), "service is a full host name and takes no namespace", "remove namespace, or write name in place of service")
		}
		if v.Domain != "" {
			s.error(finding.Conflict, finding.Child(path, "domain"), "service is a full host name and takes no domain", "remove domain, or write name in place of service")
		}
	}
	if v.Name != "" && !isLabel(v.Name) {
		hint := "use lower-case letters, digits and dashes"
		if strings.Contains(v.Name, ".") {
			hint = "write service for a full host name"
		}
		s.error(finding.InvalidValue, finding.Child(path, "name"), fmt.Sprintf("%q is no service name", v.Name), hint)
	}
	if v.Service != "" && !isEgressHost(v.Service) {
		s.error(finding.InvalidValue, finding.Child(path, "service"), fmt.Sprintf("%q is no host name", v.Service), hostForm)
	}
	if v.Namespace != "" && !isLabel(v.Namespace) {
		s.error(finding.InvalidValue, finding.Child(path, "namespace"), fmt.Sprintf("%q is no namespace", v.Namespace), "use lower-case letters, digits and dashes")
	}
	if v.Domain != "" && !isFQDN(v.Domain) {
		s.error(finding.InvalidValue, finding.Child(path, "domain"), fmt.Sprintf("%q is no domain", v.Domain), "as in svc.cluster.local")
	}
	s.labels(finding.Child(path, "labels"), v.Labels)
}

// duration judges a duration that is set; nil passes.
func (s *subject) duration(path string, d *metav1.Duration) {
	switch {
	case d == nil:
	case d.Duration < time.Millisecond:
		s.error(finding.InvalidValue, path, fmt.Sprintf("%s is too short", d.Duration), "the shortest duration is 1ms")
	case d.Duration%time.Millisecond != 0:
		s.error(finding.InvalidValue, path, fmt.Sprintf("%s is no whole number of milliseconds", d.Duration), "write it as "+d.Round(time.Millisecond).String())
	}
}

func (s *subject) requiredDuration(path string, d *metav1.Duration) {
	if d == nil {
		s.error(finding.Required, path, "the duration is missing", "write it like 7s, 1m30s or 250ms")
	}
	s.duration(path, d)
}

// percent judges a share that is set; nil passes and means all.
func (s *subject) percent(path string, p *float64) {
	if p != nil && (*p < 0 || *p > 100) {
		s.error(finding.InvalidValue, path, fmt.Sprintf("%v is no percentage", *p), "it is from 0 to 100")
	}
}

func (s *subject) notNegative(path string, n int64) {
	if n < 0 {
		s.error(finding.InvalidValue, path, fmt.Sprintf("%d is negative", n), "it is 0 or more")
	}
}

func (s *subject) subnets(path string, subnets []string) {
	s.atMost(path, len(subnets), v1alpha2.MaxSubnets)
	for i, n := range subnets {
		if _, ok := Subnet(n); !ok {
			s.error(finding.InvalidValue, finding.Item(path, i), fmt.Sprintf("%q is no subnet", n), "as in 10.1.0.0/16 or fd00:1::/32; an address alone is a subnet of one")
		}
	}
}

// Subnet reads an address of IPv4 or IPv6 with the number of bits that count, all of them when none is said.
func Subnet(text string) (netip.Prefix, bool) {
	address, _, has := strings.Cut(text, "/")
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" || a.Is6() && strings.Contains(address, ".") {
		return netip.Prefix{}, false
	}
	if !has {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err == nil
}

// headerText judges what is put into a request: no blanks and no control characters.
func (s *subject) headerText(path, text string) {
	s.short(path, text)
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		s.error(finding.InvalidValue, path, fmt.Sprintf("%q holds a blank or a control character", text), "percent-encode it")
	}
}

// form judges a choice between the form that is known and custom, for which 0.2's schema left room and which never meant anything.
func (s *subject) form(path, known string, has bool, custom *runtime.RawExtension) {
	switch {
	case has && custom != nil:
		s.error(finding.Conflict, path+".custom", known+" and custom exclude each other", "remove custom, which has no meaning")
	case custom != nil:
		s.ignored(path+".custom", "no custom form is known")
	case !has:
		s.ignored(path, "it is empty; "+known+" is what it may hold")
	}
}

func (s *subject) overrideHeader(path, name string) {
	if name != "" && !isToken(name) {
		s.error(finding.InvalidValue, finding.Child(path, "overrideHeaderName"), fmt.Sprintf("%.256q is no header name", name), "a name is made of letters, digits and dashes")
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
