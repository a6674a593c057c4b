package get

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
)

// Every cell is one word, so that awk can count columns.
const (
	everything = "*"
	nothing    = "-"
)

// layout is how a mesh kind is shown: the columns between NAME and AGE, and those that wide adds after it.
type layout struct {
	columns, wide []string
	cells         func(u *unstructured.Unstructured, wide bool) []string
}

// layouts by kind.
func layouts() map[string]layout {
	status := []string{"HOST", "ACCEPTED", "PROGRAMMED"}
	return map[string]layout{
		v1alpha2.KindRouteRule:         {[]string{"DESTINATION", "PRECEDENCE", "MATCH", "ROUTE"}, status, routeRule},
		v1alpha2.KindDestinationPolicy: {[]string{"DESTINATION", "VERSION", "LOADBALANCING", "CIRCUITBREAKER"}, status, destinationPolicy},
		v1alpha2.KindEgressRule:        {[]string{"DESTINATION", "PORTS"}, status, egressRule},
	}
}

func routeRule(u *unstructured.Unstructured, wide bool) []string {
	var r v1alpha2.RouteRule
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &r); err != nil {
		return unreadable(4)
	}
	s := r.Spec
	cells := []string{service(s.Destination), strconv.Itoa(int(s.Precedence)), match(s.Match), route(s)}
	return append(cells, statusCells(s.Destination, u.GetNamespace(), r.Status, wide)...)
}

func destinationPolicy(u *unstructured.Unstructured, wide bool) []string {
	var p v1alpha2.DestinationPolicy
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p); err != nil {
		return unreadable(4)
	}
	balancing, breaker := nothing, nothing
	if lb := p.Spec.LoadBalancing; lb != nil && lb.Name != "" {
		balancing = string(lb.Name)
	}
	if p.Spec.CircuitBreaker != nil && p.Spec.CircuitBreaker.SimpleCb != nil {
		breaker = "simple"
	}
	cells := []string{service(p.Spec.Destination), version(p.Spec.Destination.Labels), balancing, breaker}
	return append(cells, statusCells(p.Spec.Destination, u.GetNamespace(), p.Status, wide)...)
}

func egressRule(u *unstructured.Unstructured, wide bool) []string {
	var e v1alpha2.EgressRule
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &e); err != nil {
		return unreadable(2)
	}
	var ports []string
	for _, p := range e.Spec.Ports {
		ports = append(ports, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
	}
	cells := []string{service(e.Spec.Destination), cmp.Or(strings.Join(ports, ","), nothing)}
	return append(cells, statusCells(e.Spec.Destination, u.GetNamespace(), e.Status, wide)...)
}

// unreadable stands for an object that another release stored and that does not fit this one's type.
func unreadable(columns int) []string { return slices.Repeat([]string{"?"}, columns) }

func statusCells(destination v1alpha2.IstioService, namespace string, status v1alpha2.Status, wide bool) []string {
	if !wide {
		return nil
	}
	return []string{check.Hostname(destination, namespace, check.DefaultDomain), condition(status, v1alpha2.ConditionAccepted), condition(status, v1alpha2.ConditionProgrammed)}
}

// condition is True, False:Reason, or Unknown where the control plane has not spoken yet.
func condition(status v1alpha2.Status, name string) string {
	for _, c := range status.Conditions {
		if c.Type != name {
			continue
		}
		if c.Status == metav1.ConditionTrue {
			return string(c.Status)
		}
		return string(c.Status) + ":" + c.Reason
	}
	return string(metav1.ConditionUnknown)
}

func service(s v1alpha2.IstioService) string {
	if s.Service != "" {
		return s.Service
	}
	if s.Namespace != "" {
		return s.Name + "." + s.Namespace
	}
	return cmp.Or(s.Name, nothing)
}

// version is the labels that select instances; a lone version label is shown by its value.
func version(labels map[string]string) string {
	if len(labels) == 0 {
		return everything
	}
	if v, ok := labels["version"]; ok && len(labels) == 1 {
		return word(v)
	}
	var parts []string
	for k, v := range labels {
		parts = append(parts, k+":"+v)
	}
	slices.Sort(parts)
	return word(strings.Join(parts, "&"))
}

// match is the conditions of a rule, all of which must hold, joined by commas.
func match(m *v1alpha2.MatchCondition) string {
	if m == nil {
		return everything
	}
	var parts []string
	if m.Source != nil {
		from := "source:" + service(*m.Source)
		if len(m.Source.Labels) > 0 {
			from += "/" + version(m.Source.Labels)
		}
		parts = append(parts, from)
	}
	for name, l4 := range map[string]*v1alpha2.L4MatchAttrs{"tcp": m.TCP, "udp": m.UDP} {
		if l4 == nil {
			continue
		}
		for _, s := range l4.SourceSubnet {
			parts = append(parts, name+".from:"+s)
		}
		for _, s := range l4.DestinationSubnet {
			parts = append(parts, name+".to:"+s)
		}
	}
	if m.Request != nil {
		for name, s := range m.Request.Headers {
			parts = append(parts, name+stringMatch(s))
		}
	}
	slices.Sort(parts)
	return cmp.Or(word(strings.Join(parts, ",")), everything)
}

func stringMatch(s v1alpha2.StringMatch) string {
	switch {
	case s.Exact != nil:
		return "=" + *s.Exact
	case s.Prefix != nil:
		return "=" + *s.Prefix + "*"
	case s.Regex != nil:
		return "~" + *s.Regex
	default:
		return ""
	}
}

// route is where requests go, as version=percent, and what is done to them on the way.
func route(s v1alpha2.RouteRuleSpec) string {
	var parts []string
	if s.Redirect != nil {
		parts = append(parts, "redirect:"+s.Redirect.Authority+s.Redirect.URI)
	}
	for _, r := range s.Route {
		to := version(r.Labels)
		if r.Destination != nil {
			to = service(*r.Destination) + "/" + to
		}
		weight := r.Weight
		if len(s.Route) == 1 && weight == 0 {
			weight = 100
		}
		parts = append(parts, fmt.Sprintf("%s=%d", to, weight))
	}
	out := cmp.Or(strings.Join(parts, ","), everything)
	if f := s.HTTPFault; f != nil && f.Delay != nil && f.Delay.FixedDelay != nil {
		out += "+delay:" + f.Delay.FixedDelay.Duration.String() + percent(f.Delay.Percent)
	}
	if f := s.HTTPFault; f != nil && f.Abort != nil && f.Abort.HTTPStatus != nil {
		out += fmt.Sprintf("+abort:%d%s", *f.Abort.HTTPStatus, percent(f.Abort.Percent))
	}
	if t := s.HTTPReqTimeout; t != nil && t.SimpleTimeout != nil && t.SimpleTimeout.Timeout != nil {
		out += "+timeout:" + t.SimpleTimeout.Timeout.Duration.String()
	}
	if r := s.HTTPReqRetries; r != nil && r.SimpleRetry != nil {
		out += fmt.Sprintf("+retries:%d", r.SimpleRetry.Attempts)
	}
	return word(out)
}

func percent(p *float64) string {
	if p == nil {
		return ""
	}
	return "@" + strconv.FormatFloat(*p, 'g', -1, 64) + "%"
}

// word keeps a cell one word: a space in a regular expression is shown by its escape.
func word(s string) string {
	return strings.NewReplacer(" ", `\x20`, "\t", `\t`, "\n", `\n`).Replace(s)
}

func age(u *unstructured.Unstructured) string {
	created := u.GetCreationTimestamp()
	if created.IsZero() {
		return nothing
	}
	return duration.HumanDuration(time.Since(created.Time))
}
