package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// Set judges the objects of about among all, which contains them: names that nothing has, rules that hide or equal each other. A set without
// Services, such as a file of rules alone, is not asked for names.
func Set(all *objects.Set, about []*objects.Object) []finding.Finding {
	asked := make(map[objects.Key]bool, len(about))
	for _, o := range about {
		asked[o.Key()] = true
	}
	j := newJudge(func(o *objects.Object) bool { return asked[o.Key()] })
	for _, o := range all.All() {
		j.edit(nil, o)
	}
	var out []finding.Finding
	for _, o := range about {
		out = append(out, j.among(o, func(input) {})...)
	}
	return out
}

// among judges one object among all. What it looks at of the others it looks up by the methods of index.go, which tell read.
func (j *judge) among(o *objects.Object, read func(input)) []finding.Finding {
	s := &subject{object: o, read: read}
	switch v := o.Value.(type) {
	case *v1alpha2.RouteRule:
		j.names(s, v)
		j.foreign(s, v.Spec.Destination, "rule")
		j.order(s, v)
	case *v1alpha2.DestinationPolicy:
		j.known(s, "spec.destination", v.Spec.Destination)
		j.instances(s, "spec.destination.labels", v.Spec.Destination, v.Spec.Destination.Labels, "the policy takes effect once there is one")
		if v.Spec.Source != nil {
			j.known(s, "spec.source", j.caller(s, *v.Spec.Source))
		}
		j.foreign(s, v.Spec.Destination, "policy")
		j.contest(s, v)
	case *v1alpha2.EgressRule:
		j.claim(s, v)
		j.covered(s, v)
	case *networkingv1.Ingress:
		j.backends(s, v)
		j.certificates(s, v)
	}
	return s.findings
}

// rule is a route rule with its names resolved.
type rule struct {
	object *objects.Object
	spec   *v1alpha2.RouteRuleSpec
	scope
}

// Order compares two RouteRules by the order in which they are tried: precedence descending, then namespace and name ascending.
func Order(a, b *objects.Object) int {
	precedence := func(o *objects.Object) int32 {
		if r, ok := o.Value.(*v1alpha2.RouteRule); ok {
			return r.Spec.Precedence
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(precedence(b), precedence(a)),
		cmp.Compare(a.Value.GetNamespace(), b.Value.GetNamespace()),
		cmp.Compare(a.Value.GetName(), b.Value.GetName()),
	)
}

// identity is the same for all spellings of one service, whatever the cluster's domain; "" when svc names none.
func identity(svc v1alpha2.IstioService, namespace string) string {
	host := resolve(svc, namespace)
	if name, namespace, ok := clusterService(host); ok {
		return name + "." + namespace + ".svc"
	}
	return host
}

// resolve is the host name of svc to show and to take apart; "" when it names none.
func resolve(svc v1alpha2.IstioService, namespace string) string {
	if svc.Name == "" && svc.Service == "" {
		return ""
	}
	return Hostname(svc, namespace, DefaultDomain)
}

// clusterService takes a host name apart that is one of the cluster's, whatever the cluster's domain.
func clusterService(host string) (name, namespace string, ok bool) {
	parts := strings.SplitN(host, ".", 4)
	if len(parts) < 3 || parts[2] != "svc" {
		return "", "", false
	}
	return parts[0], parts[1], true
}

// podLabels are the labels that the instances of a workload carry.
func podLabels(v objects.Value) (namespace string, labels map[string]string, ok bool) {
	switch v := v.(type) {
	case *corev1.Pod:
		labels = v.Labels
	case *appsv1.Deployment:
		labels = v.Spec.Template.Labels
	case *appsv1.StatefulSet:
		labels = v.Spec.Template.Labels
	case *appsv1.DaemonSet:
		labels = v.Spec.Template.Labels
	case *appsv1.ReplicaSet:
		labels = v.Spec.Template.Labels
	case *corev1.ReplicationController:
		if v.Spec.Template == nil {
			return "", nil, false
		}
		labels = v.Spec.Template.Labels
	case *batchv1.Job:
		labels = v.Spec.Template.Labels
	default:
		return "", nil, false
	}
	return v.GetNamespace(), labels, true
}

// names judges the services and versions that a route rule speaks of.
func (j *judge) names(s *subject, r *v1alpha2.RouteRule) {
	j.known(s, "spec.destination", r.Spec.Destination)
	if r.Spec.Match != nil && r.Spec.Match.Source != nil {
		j.known(s, "spec.match.source", j.caller(s, *r.Spec.Match.Source))
	}
	for i, w := range r.Spec.Route {
		path := finding.Item("spec.route", i)
		to := r.Spec.Destination
		if w.Destination != nil {
			to = *w.Destination
			j.known(s, path+".destination", to)
		}
		j.instances(s, path+".labels", to, w.Labels, "requests sent there are answered 503")
	}
}

// known warns about a service that the set does not have.
func (j *judge) known(s *subject, path string, svc v1alpha2.IstioService) {
	host := resolve(svc, s.object.Value.GetNamespace())
	if host == "" || !j.anyService(s) || j.service(s, host) != nil {
		return
	}
	field := finding.Child(path, "name")
	if svc.Service != "" {
		field = finding.Child(path, "service")
		if j.external(s, host) {
			return
		}
	}
	hint := "the rule takes effect once the service exists"
	name, namespace, ok := clusterService(host)
	switch {
	case !ok && !strings.Contains(host, "."):
		hint = fmt.Sprintf("write name: %s for a service of the mesh", host)
	case ok:
		if near := j.near(s, name, namespace); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
	}
	s.warn(finding.UnknownService, field, fmt.Sprintf("there is no service %s", host), hint)
}

// near looks for the service that was meant: the same name in another namespace, or a similar name in this one.
func (j *judge) near(s *subject, name, namespace string) string {
	names, elsewhere := j.similar(s, name, namespace)
	if len(elsewhere) > 0 {
		return fmt.Sprintf("%s of namespace %s", name, elsewhere[0])
	}
	return finding.Nearest(name, names)
}

// instances warns about a version of a service that nothing runs, when something runs of the service at all.
func (j *judge) instances(s *subject, path string, svc v1alpha2.IstioService, labels map[string]string, hint string) {
	service := j.service(s, resolve(svc, s.object.Value.GetNamespace()))
	if service == nil || len(service.Spec.Selector) == 0 || len(labels) == 0 {
		return
	}
	others := map[string]bool{}
	for _, have := range j.instancesOf(s, service) {
		if contains(have, labels) {
			return
		}
		var parts []string
		for _, key := range sortedKeys(labels) {
			if v, ok := have[key]; ok {
				parts = append(parts, key+"="+v)
			}
		}
		others[strings.Join(parts, ",")] = true
	}
	if len(others) == 0 {
		return
	}
	delete(others, "")
	if len(others) > 0 {
		hint += "; there is " + strings.Join(slices.Sorted(maps.Keys(others)), " and ")
	}
	s.warn(finding.UnknownVersion, path, fmt.Sprintf("no instance of %s is labelled %s", service.Name, join(labels)), hint)
}

func contains(labels, selector map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func join(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, key := range sortedKeys(labels) {
		parts = append(parts, key+"="+labels[key])
	}
	return strings.Join(parts, ",")
}

// foreign warns about a rule or policy for another namespace's service, which acts on the calls of its own namespace alone.
func (j *judge) foreign(s *subject, destination v1alpha2.IstioService, what string) {
	own := s.object.Value.GetNamespace()
	_, namespace, ok := clusterService(resolve(destination, own))
	if !ok || namespace == own || own == MeshNamespace {
		return
	}
	s.warn(finding.ForeignNamespace, "spec.destination",
		fmt.Sprintf("the service belongs to namespace %s, so the %s acts on calls from namespace %s alone", namespace, what, own),
		fmt.Sprintf("to act on all calls it must be in namespace %s, or in %s", namespace, MeshNamespace))
}

// order warns about rules for one host that are tried before this one and leave it nothing, or that only their names put in order. Of two rules
// of about the one that loses is told.
func (j *judge) order(s *subject, r *v1alpha2.RouteRule) {
	rules := j.rulesFor(s, identity(r.Spec.Destination, r.Namespace))
	own := slices.IndexFunc(rules, func(o *rule) bool { return o.object == s.object })
	if own < 0 {
		return
	}
	var winners, losers []string
	nothing := ""
	for i, other := range rules {
		if i == own || !overlap(rules[own], other) {
			continue
		}
		name := other.object.Value.GetNamespace() + "/" + other.object.Value.GetName()
		covered := i < own && covers(other, rules[own])
		switch same := other.spec.Precedence == r.Spec.Precedence; {
		case !same && covered:
			s.warn(finding.Shadowed, "spec.precedence",
				fmt.Sprintf("RouteRule %s of precedence %d takes every request that this rule matches", name, other.spec.Precedence),
				fmt.Sprintf("give this rule a precedence above %d, or narrow the other one", other.spec.Precedence))
			return
		case same && i < own:
			winners = append(winners, name)
			if covered {
				nothing = ", and leaves this rule nothing"
			}
		case same && !j.asked(other.object):
			losers = append(losers, name)
		}
	}
	const hint = "give the rule that should win a higher precedence"
	if len(winners) > 0 {
		s.warn(finding.EqualPrecedence, "spec.precedence", fmt.Sprintf("precedence %d is also that of %s, which can match the same request; %s wins, for its name comes first%s",
			r.Spec.Precedence, routeRules(winners), winners[0], nothing), hint)
	}
	if len(losers) > 0 {
		s.warn(finding.EqualPrecedence, "spec.precedence", fmt.Sprintf("precedence %d is also that of %s, which can match the same request; this rule wins, for its name comes first",
			r.Spec.Precedence, routeRules(losers)), hint)
	}
}

// routeRules lists some names and counts the rest.
func routeRules(names []string) string {
	const most = 3
	rest := ""
	if n := len(names) - most; n > 0 {
		names, rest = names[:most], fmt.Sprintf(" and %d more", n)
	}
	return "RouteRule " + strings.Join(names, ", ") + rest
}

// overlap says whether one request could match both rules, as far as can be told: two different regular expressions always could.
func overlap(a, b *rule) bool {
	if !a.meets(b.scope) || !meetSubnets(sourceSubnets(a), sourceSubnets(b)) || !meetSubnets(destinationSubnets(a), destinationSubnets(b)) {
		return false
	}
	for name, m := range headers(a) {
		if other, ok := headers(b)[name]; ok && !compatible(m, other) {
			return false
		}
	}
	return true
}

// covers says whether a matches every request that b matches.
func covers(a, b *rule) bool {
	if !a.contains(b.scope) {
		return false
	}
	if !coversSubnets(sourceSubnets(a), sourceSubnets(b)) || !coversSubnets(destinationSubnets(a), destinationSubnets(b)) {
		return false
	}
	for name, m := range headers(a) {
		if other, ok := headers(b)[name]; !always(name, m) && (!ok || !implies(other, m)) {
			return false
		}
	}
	return true
}

// always says whether every request matches m: all have a path, a method, an authority and a scheme.
func always(name string, m v1alpha2.StringMatch) bool {
	switch name {
	case "uri":
		return m.Prefix != nil && *m.Prefix == "/" || m.Regex != nil && (*m.Regex == ".*" || *m.Regex == "/.*")
	case "method", "authority", "scheme":
		return m.Prefix != nil && *m.Prefix == "" || m.Regex != nil && *m.Regex == ".*"
	}
	return false
}

func sourceSubnets(r *rule) []string {
	if r.spec.Match == nil || r.spec.Match.TCP == nil {
		return nil
	}
	return r.spec.Match.TCP.SourceSubnet
}

func destinationSubnets(r *rule) []string {
	if r.spec.Match == nil || r.spec.Match.TCP == nil {
		return nil
	}
	return r.spec.Match.TCP.DestinationSubnet
}

// coversSubnets says whether each subnet of b is within one of a. None at all is every address.
func coversSubnets(a, b []string) bool {
	if len(a) == 0 {
		return true
	}
	within := func(inner string) bool {
		return slices.ContainsFunc(a, func(outer string) bool {
			o, oneOK := Subnet(outer)
			i, otherOK := Subnet(inner)
			return oneOK && otherOK && o.Bits() <= i.Bits() && o.Contains(i.Addr())
		})
	}
	return len(b) > 0 && !slices.ContainsFunc(b, func(s string) bool { return !within(s) })
}

// meetSubnets says whether one address could be in both. None at all is every address.
func meetSubnets(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(one string) bool {
		return slices.ContainsFunc(b, func(other string) bool {
			o, oneOK := Subnet(one)
			i, otherOK := Subnet(other)
			return oneOK && otherOK && o.Overlaps(i)
		})
	})
}

func headers(r *rule) map[string]v1alpha2.StringMatch {
	if r.spec.Match == nil || r.spec.Match.Request == nil {
		return nil
	}
	return r.spec.Match.Request.Headers
}

// compatible says whether one value could match both.
func compatible(a, b v1alpha2.StringMatch) bool {
	switch {
	case a.Exact != nil:
		return matches(b, *a.Exact)
	case b.Exact != nil:
		return matches(a, *b.Exact)
	case a.Prefix != nil && b.Prefix != nil:
		return strings.HasPrefix(*a.Prefix, *b.Prefix) || strings.HasPrefix(*b.Prefix, *a.Prefix)
	}
	return true
}

// implies says whether every value that a matches is matched by b, as far as can be told.
func implies(a, b v1alpha2.StringMatch) bool {
	switch {
	case a.Exact != nil:
		return matches(b, *a.Exact)
	case a.Prefix != nil:
		return b.Prefix != nil && strings.HasPrefix(*a.Prefix, *b.Prefix)
	case a.Regex != nil:
		return b.Regex != nil && *a.Regex == *b.Regex
	}
	return false
}

func matches(m v1alpha2.StringMatch, value string) bool {
	switch {
	case m.Exact != nil:
		return *m.Exact == value
	case m.Prefix != nil:
		return strings.HasPrefix(value, *m.Prefix)
	case m.Regex != nil:
		return matchesRegex(*m.Regex, value)
	}
	return false
}

// backends warns about an Ingress that sends requests to what does not exist.
func (j *judge) backends(s *subject, in *networkingv1.Ingress) {
	if !j.anyService(s) {
		return
	}
	if b := in.Spec.DefaultBackend; b != nil {
		j.backend(s, "spec.defaultBackend", in.Namespace, *b)
	}
	for i, r := range in.Spec.Rules {
		if r.HTTP == nil {
			continue
		}
		for k, p := range r.HTTP.Paths {
			j.backend(s, finding.Item(finding.Item("spec.rules", i)+".http.paths", k)+".backend", in.Namespace, p.Backend)
		}
	}
}

func (j *judge) backend(s *subject, path, namespace string, b networkingv1.IngressBackend) {
	if b.Service == nil {
		return
	}
	svc := j.service(s, b.Service.Name+"."+namespace+".svc")
	if svc == nil {
		hint := "requests are answered 503 until it exists"
		if near := j.near(s, b.Service.Name, namespace); near != "" {
			hint = fmt.Sprintf("did you mean %s?", near)
		}
		s.warn(finding.UnknownBackend, path+".service.name", fmt.Sprintf("there is no service %s in namespace %s", b.Service.Name, namespace), hint)
		return
	}
	var ports []string
	for _, p := range svc.Spec.Ports {
		if p.Name != "" && p.Name == b.Service.Port.Name || p.Port == b.Service.Port.Number {
			return
		}
		ports = append(ports, strings.TrimSpace(fmt.Sprintf("%d %s", p.Port, p.Name)))
	}
	port := cmp.Or(b.Service.Port.Name, fmt.Sprint(b.Service.Port.Number))
	s.warn(finding.UnknownBackend, path+".service.port", fmt.Sprintf("service %s has no port %s", svc.Name, port), "its ports are "+strings.Join(ports, ", "))
}
