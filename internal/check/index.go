package check

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// judge is the set, indexed by what judging one object among all asks. Everything that is asked is asked by a method that tells the subject's read
// of it, and everything that edit changes is told to changed: so it is known which verdicts a change bears on.
type judge struct {
	// asked says whether an object is judged, too.
	asked    func(*objects.Object) bool
	services map[string]*corev1.Service
	secrets  map[string]*corev1.Secret
	// named are the namespaces that have a service of a name, and within the names of a namespace's services.
	named, within map[string]map[string]bool
	// sets are the sets of labels that pods and what makes pods carry, by namespace and one of the labels.
	sets map[label][]*labelSet
	// distinct are the same, by namespace and all labels.
	distinct map[string]*labelSet
	// rules are the route rules of a host in the order they are tried.
	rules map[string][]*rule
	// policies are the destination policies of a host in the order they are asked.
	policies map[string][]*policy
	// claims are the objects that say something only one may say, the one that wins first.
	claims map[string][]*objects.Object
	// verdicts are what Object says of the objects judged, and of others it says anything of.
	verdicts map[objects.Key]verdict
	changed  []input
}

// verdict is what Object says of an object.
type verdict struct {
	object   *objects.Object
	findings []finding.Finding
}

// input is something that can be asked, and told apart from everything else: the kind of question, and whom it is about.
type input struct {
	question question
	name     string
	label    label
}

type question int

const (
	anyService question = iota
	serviceOf
	anySecret
	secretOf
	namesakes
	neighbours
	labelled
	rulesOf
	policiesOf
	holdersOf
	everyClaim
)

// label is one label in a namespace.
type label struct{ namespace, key, value string }

// labelSet is the labels of a number of workloads.
type labelSet struct {
	labels map[string]string
	number int
}

func newJudge(asked func(*objects.Object) bool) *judge {
	return &judge{
		asked:    asked,
		services: map[string]*corev1.Service{}, secrets: map[string]*corev1.Secret{},
		named: map[string]map[string]bool{}, within: map[string]map[string]bool{},
		sets: map[label][]*labelSet{}, distinct: map[string]*labelSet{},
		rules: map[string][]*rule{}, policies: map[string][]*policy{}, claims: map[string][]*objects.Object{},
		verdicts: map[objects.Key]verdict{},
	}
}

func (j *judge) anyService(s *subject) bool {
	s.read(input{question: anyService})
	return len(j.services) > 0
}

func (j *judge) service(s *subject, host string) *corev1.Service {
	name, namespace, ok := clusterService(host)
	if !ok {
		return nil
	}
	s.read(input{question: serviceOf, name: name + "." + namespace})
	return j.services[name+"."+namespace]
}

func (j *judge) anySecret(s *subject) bool {
	s.read(input{question: anySecret})
	return len(j.secrets) > 0
}

func (j *judge) secret(s *subject, name, namespace string) *corev1.Secret {
	s.read(input{question: secretOf, name: name + "." + namespace})
	return j.secrets[name+"."+namespace]
}

// similar are the names of the services in a namespace, and the other namespaces that have a service of the name.
func (j *judge) similar(s *subject, name, namespace string) (names, elsewhere []string) {
	s.read(input{question: neighbours, name: namespace})
	s.read(input{question: namesakes, name: name})
	for _, other := range sortedKeys(j.named[name]) {
		if other != namespace {
			elsewhere = append(elsewhere, other)
		}
	}
	return sortedKeys(j.within[namespace]), elsewhere
}

// instancesOf are the sets of labels that a service selects.
func (j *judge) instancesOf(s *subject, svc *corev1.Service) []map[string]string {
	// Each label of the selector has all of them; the rarest has the fewest others.
	var rarest label
	first := true
	for k, v := range svc.Spec.Selector {
		l := label{svc.Namespace, k, v}
		if n, best := len(j.sets[l]), len(j.sets[rarest]); first || n < best || n == best && k < rarest.key {
			rarest, first = l, false
		}
	}
	if first {
		return nil
	}
	s.read(input{question: labelled, label: rarest})
	var out []map[string]string
	for _, set := range j.sets[rarest] {
		if contains(set.labels, svc.Spec.Selector) {
			out = append(out, set.labels)
		}
	}
	return out
}

func (j *judge) rulesFor(s *subject, host string) []*rule {
	s.read(input{question: rulesOf, name: host})
	return j.rules[host]
}

func (j *judge) policiesFor(s *subject, host string) []*policy {
	s.read(input{question: policiesOf, name: host})
	return j.policies[host]
}

func (j *judge) holders(s *subject, claim string) []*objects.Object {
	s.read(input{question: holdersOf, name: claim})
	return j.claims[claim]
}

// allClaims are all that is claimed. Whoever asks is judged anew whenever any claim changes.
func (j *judge) allClaims(s *subject) []string {
	s.read(input{question: everyClaim})
	return sortedKeys(j.claims)
}

// edit takes note of an object that came when old is nil, went when now is nil, and changed otherwise.
func (j *judge) edit(old, now *objects.Object) {
	// A refused object is not in force, so it hides nothing.
	old, now = j.inForce(old, now)
	if old != nil && now != nil && reflect.TypeOf(old.Value) != reflect.TypeOf(now.Value) {
		j.index(old, nil)
		j.index(nil, now)
		return
	}
	j.index(old, now)
}

// index takes note of one or two objects in force of one type.
func (j *judge) index(old, now *objects.Object) {
	kind := old
	if kind == nil {
		kind = now
	}
	if kind == nil {
		return
	}
	switch kind.Value.(type) {
	case *corev1.Service:
		j.editService(valueOf[*corev1.Service](old), valueOf[*corev1.Service](now))
	case *corev1.Secret:
		j.editSecret(valueOf[*corev1.Secret](old), valueOf[*corev1.Secret](now))
	case *v1alpha2.RouteRule:
		j.editRule(old, now)
	case *v1alpha2.DestinationPolicy:
		j.editPolicy(old, now)
	case *v1alpha2.EgressRule:
		j.editClaims(old, now)
	default:
		// In this order, labels that stay are never gone.
		j.count(now, 1)
		j.count(old, -1)
	}
}

// inForce is the two without those that Object refuses, and keeps what it says of the one that is there now.
func (j *judge) inForce(old, now *objects.Object) (before, after *objects.Object) {
	if old != nil {
		if v, ok := j.verdicts[old.Key()]; !ok || !finding.HasErrors(v.findings) {
			before = old
		}
		delete(j.verdicts, old.Key())
	}
	if now == nil {
		return before, nil
	}
	fs := Object(now)
	if len(fs) > 0 || j.asked(now) {
		j.verdicts[now.Key()] = verdict{object: now, findings: fs}
	}
	if finding.HasErrors(fs) {
		return before, nil
	}
	return before, now
}

func valueOf[T objects.Value](o *objects.Object) T {
	var none T
	if o == nil {
		return none
	}
	v, ok := o.Value.(T)
	if !ok {
		return none
	}
	return v
}

func (j *judge) change(q question, name string) {
	j.changed = append(j.changed, input{question: q, name: name})
}

func (j *judge) editService(old, now *corev1.Service) {
	if old != nil && now != nil && reflect.DeepEqual(old.Spec, now.Spec) {
		j.services[now.Name+"."+now.Namespace] = now
		return
	}
	before := len(j.services)
	svc := now
	if now == nil {
		svc = old
	}
	key := svc.Name + "." + svc.Namespace
	j.change(serviceOf, key)
	if now != nil {
		j.services[key] = now
	} else {
		delete(j.services, key)
	}
	if (old == nil) != (now == nil) {
		j.change(namesakes, svc.Name)
		j.change(neighbours, svc.Namespace)
		member(j.named, svc.Name, svc.Namespace, now != nil)
		member(j.within, svc.Namespace, svc.Name, now != nil)
	}
	if (before == 0) != (len(j.services) == 0) {
		j.change(anyService, "")
	}
}

// member puts a name into a set, or takes it out.
func member(sets map[string]map[string]bool, of, name string, in bool) {
	switch {
	case in && sets[of] == nil:
		sets[of] = map[string]bool{name: true}
	case in:
		sets[of][name] = true
	default:
		delete(sets[of], name)
		if len(sets[of]) == 0 {
			delete(sets, of)
		}
	}
}

func (j *judge) editSecret(old, now *corev1.Secret) {
	before := len(j.secrets)
	secret := now
	if now == nil {
		secret = old
		delete(j.secrets, secret.Name+"."+secret.Namespace)
	} else {
		j.secrets[secret.Name+"."+secret.Namespace] = now
	}
	j.change(secretOf, secret.Name+"."+secret.Namespace)
	if (before == 0) != (len(j.secrets) == 0) {
		j.change(anySecret, "")
	}
}

func (j *judge) editRule(old, now *objects.Object) {
	if old != nil {
		v := valueOf[*v1alpha2.RouteRule](old)
		host := identity(v.Spec.Destination, v.Namespace)
		take(j.rules, host, func(r *rule) bool { return r.object == old })
		j.change(rulesOf, host)
	}
	if now != nil {
		v := valueOf[*v1alpha2.RouteRule](now)
		host := identity(v.Spec.Destination, v.Namespace)
		put(j.rules, host, &rule{object: now, spec: &v.Spec, scope: newScope(host, v.Namespace, sourceOf(&v.Spec))}, compareRules)
		j.change(rulesOf, host)
	}
}

func compareRules(a, b *rule) int { return Order(a.object, b.object) }

func (j *judge) editPolicy(old, now *objects.Object) {
	if old != nil {
		v := valueOf[*v1alpha2.DestinationPolicy](old)
		host := identity(v.Spec.Destination, v.Namespace)
		take(j.policies, host, func(p *policy) bool { return p.object == old })
		j.change(policiesOf, host)
	}
	if now != nil {
		v := valueOf[*v1alpha2.DestinationPolicy](now)
		host := identity(v.Spec.Destination, v.Namespace)
		put(j.policies, host, newPolicy(now, v), comparePolicies)
		j.change(policiesOf, host)
	}
}

func (j *judge) editClaims(old, now *objects.Object) {
	for _, claim := range claimsOf(old) {
		take(j.claims, claim, func(o *objects.Object) bool { return o == old })
		j.change(holdersOf, claim)
	}
	for _, claim := range claimsOf(now) {
		put(j.claims, claim, now, compareClaims)
		j.change(holdersOf, claim)
	}
	j.change(everyClaim, "")
}

// claimsOf are what an object says that only one may say.
func claimsOf(o *objects.Object) []string {
	if o == nil {
		return nil
	}
	if v, ok := o.Value.(*v1alpha2.EgressRule); ok {
		return []string{egressClaim(v)}
	}
	return nil
}

// compareClaims puts the one first that wins.
func compareClaims(a, b *objects.Object) int { return a.Key().Compare(b.Key()) }

// put inserts where order says, and take removes.
func put[T any](lists map[string][]T, of string, item T, order func(a, b T) int) {
	i, _ := slices.BinarySearchFunc(lists[of], item, order)
	lists[of] = slices.Insert(lists[of], i, item)
}

func take[T any](lists map[string][]T, of string, is func(T) bool) {
	rest := slices.DeleteFunc(lists[of], is)
	if len(rest) == 0 {
		delete(lists, of)
		return
	}
	lists[of] = rest
}

// count adds to, or takes from, the number of workloads with the labels of o, or of the pods that it makes.
func (j *judge) count(o *objects.Object, by int) {
	if o == nil {
		return
	}
	namespace, labels, ok := podLabels(o.Value)
	if !ok || len(labels) == 0 {
		return
	}
	var b strings.Builder
	b.WriteString(namespace)
	keys := sortedKeys(labels)
	for _, k := range keys {
		b.WriteString("\x00" + k + "\x00" + labels[k])
	}
	set := j.distinct[b.String()]
	if set == nil {
		set = &labelSet{labels: labels}
		j.distinct[b.String()] = set
		for _, k := range keys {
			l := label{namespace, k, labels[k]}
			j.sets[l] = append(j.sets[l], set)
			j.changed = append(j.changed, input{question: labelled, label: l})
		}
	}
	if set.number += by; set.number > 0 {
		return
	}
	delete(j.distinct, b.String())
	for _, k := range keys {
		l := label{namespace, k, labels[k]}
		rest := slices.DeleteFunc(j.sets[l], func(other *labelSet) bool { return other == set })
		if j.sets[l] = rest; len(rest) == 0 {
			delete(j.sets, l)
		}
		j.changed = append(j.changed, input{question: labelled, label: l})
	}
}
