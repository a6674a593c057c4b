package ingest

import (
	"cmp"
	"reflect"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/memo"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// Keeper keeps the mesh of a set in step with it, at the cost of what changes. What is made of an object is kept until that object, or something that
// was looked up for it, is another; and what comes out the same stays the same value: a pointer in a mesh is that of the mesh before unless something
// about it has changed, and so is a list of which no member has. It is not safe for concurrent use, and of no use any more once Update has panicked.
type Keeper struct {
	cfg    Config
	set    *objects.Set
	mesh   *model.Mesh
	report finding.Report
	judge  *check.Judge

	// edits are those of the update under way, by group and kind, and changed the inputs that changed, as far as the stages so far know.
	edits   map[[2]string][]objects.Edit
	changed []input
	// touched are the objects about which something else may have been found, stages where to ask.
	touched map[objects.Key]bool
	stages  map[[2]string][]stage

	pods *units[*pod]
	// labelled are the pods by namespace and each of their labels, placed says whom an address means.
	labelled map[label][]*pod
	placed   *claims[string]

	services *units[*service]
	// hosts are the services by hostname, selecting those with a selector by the label of it that comes first; virtual says who has an address.
	hosts     map[string]*service
	selecting map[label][]*service
	virtual   *claims[string]
	aliases   *units[*struct{}]

	// instances are what is in each slice, parts the slices of a service.
	instances *units[*instances]
	parts     map[serviceName][]*instances
	endpoints *memo.Table[string, input, *model.Endpoints]
	// aims are the pods that a service without selector leads to by its endpoints, aimed the same the other way round.
	aims  map[string][]model.WorkloadKey
	aimed map[model.WorkloadKey][]string

	workloads *units[*model.Workload]
	// declared are the hosts outside as EgressRules speak of them, claimants the same by host, and externals what is in force of them.
	declared  *units[*model.External]
	claimants map[string][]*model.External
	externals map[string][]*model.External
	rules     *units[*model.Rule]
	policies  *units[*model.Policy]
	ingresses *units[*ingress]
	// served are the Ingresses in force, conflicts the findings about them among each other.
	served    map[objects.Key]*ingress
	conflicts map[objects.Key][]finding.Finding
}

// NewKeeper makes the keeper of an empty set.
func NewKeeper() *Keeper {
	k := &Keeper{
		set: objects.NewSet(), mesh: &model.Mesh{}, stages: map[[2]string][]stage{},
		labelled: map[label][]*pod{}, placed: newClaims[string](),
		hosts: map[string]*service{}, selecting: map[label][]*service{}, virtual: newClaims[string](),
		parts: map[serviceName][]*instances{}, endpoints: memo.New[string, input, *model.Endpoints](),
		aims: map[string][]model.WorkloadKey{}, aimed: map[model.WorkloadKey][]string{},
		claimants: map[string][]*model.External{}, externals: map[string][]*model.External{}, served: map[objects.Key]*ingress{},
	}
	k.judge = check.NewJudge(func(o *objects.Object) bool {
		switch o.Value.(type) {
		case *v1alpha2.RouteRule, *v1alpha2.DestinationPolicy, *v1alpha2.EgressRule, *networkingv1.Ingress:
			return true
		}
		return false
	})
	mesh := v1alpha2.GroupVersion.Group
	k.pods = newUnits(k, "", "Pod", of((*builder).newPod))
	k.services = newUnits(k, "", "Service", of((*builder).newService))
	k.aliases = newUnits(k, "", "Service", of((*builder).judgeAlias))
	k.instances = newUnits(k, discoveryv1.GroupName, "EndpointSlice", of((*builder).instances))
	k.workloads = newUnits(k, "", "Pod", of((*builder).workload))
	k.declared = newUnits(k, mesh, v1alpha2.KindEgressRule, of(accepted((*builder).newExternal)))
	k.rules = newUnits(k, mesh, v1alpha2.KindRouteRule, of(accepted((*builder).rule)))
	k.policies = newUnits(k, mesh, v1alpha2.KindDestinationPolicy, of(accepted((*builder).policy)))
	k.ingresses = newUnits(k, networkingv1.GroupName, "Ingress", of((*builder).ingress))
	// What joins Ingresses looks for what stays the same in them.
	k.ingresses.same = func(_, _ *ingress) bool { return false }
	return k
}

// Update makes the mesh that set describes, and what was found about its objects. They are the same, whatever sets came before.
func (k *Keeper) Update(set *objects.Set, cfg Config) (*model.Mesh, finding.Report) {
	cfg = cfg.withDefaults()
	edits := set.Since(k.set)
	k.touched = map[objects.Key]bool{}
	for _, key := range k.judge.Update(edits) {
		k.touched[key] = true
	}
	if !reflect.DeepEqual(cfg, k.cfg) {
		edits = everything(k.set, set, edits)
	}
	k.cfg, k.set = cfg, set
	k.begin(edits)
	mesh := *k.mesh
	mesh.Domain, mesh.ConnectTimeout, mesh.AccessLog, mesh.Roots = cfg.Domain, cfg.ConnectTimeout, cfg.AccessLog, cfg.Roots
	mesh.DetectionTimeout, mesh.Closed = max(cfg.DetectionTimeout, 0), cfg.Closed
	// Each looks up only what those before it made.
	k.updatePods()
	services := k.updateServices(&mesh)
	k.aliases.update()
	k.updateEndpoints(&mesh, services)
	mesh.Workloads = splice(mesh.Workloads, compareWorkloads, k.workloads.update())
	mesh.Externals = splice(mesh.Externals, compareExternals, k.updateExternals())
	mesh.Rules = splice(mesh.Rules, compareRules, k.rules.update())
	mesh.Policies = splice(mesh.Policies, comparePolicies, k.policies.update())
	k.updateIngresses(&mesh)
	if !sameMesh(&mesh, k.mesh) {
		k.mesh = &mesh
	}
	k.tell()
	k.edits, k.changed, k.touched = nil, nil, nil
	return k.mesh, k.report
}

// everything is edits, and of every other object as well that it is made anew.
func everything(was, is *objects.Set, edits []objects.Edit) []objects.Edit {
	if was.Len() == 0 {
		return edits
	}
	edited := map[objects.Key]bool{}
	for _, e := range edits {
		edited[e.Key()] = true
	}
	out := slices.Clone(edits)
	for _, o := range is.All() {
		if !edited[o.Key()] {
			out = append(out, objects.Edit{Old: o, New: o})
		}
	}
	return out
}

// begin sorts edits and notes the inputs that they are.
func (k *Keeper) begin(edits []objects.Edit) {
	k.edits, k.changed = map[[2]string][]objects.Edit{}, nil
	for _, e := range edits {
		key := e.Key()
		of := [2]string{key.Group, key.Kind}
		if k.edits[of] == nil {
			k.changed = append(k.changed, kindInput(key.Group, key.Kind))
		}
		k.edits[of] = append(k.edits[of], e)
		k.changed = append(k.changed, objectInput(key))
	}
}

func (k *Keeper) change(what what, a, b string) {
	k.changed = append(k.changed, input{what: what, a: a, b: b})
}

// sameMesh says whether two meshes share everything.
func sameMesh(a, b *model.Mesh) bool {
	x, y := reflect.ValueOf(*a), reflect.ValueOf(*b)
	for i := range x.NumField() {
		f, g := x.Field(i), y.Field(i)
		if f.Kind() == reflect.Slice {
			if f.Len() != g.Len() || f.Len() > 0 && f.Pointer() != g.Pointer() {
				return false
			}
		} else if !reflect.DeepEqual(f.Interface(), g.Interface()) {
			return false
		}
	}
	return true
}

// tell brings the report up to date.
func (k *Keeper) tell() {
	var changes []finding.About
	for key := range k.touched {
		about := finding.About{Object: finding.Object{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name}, Findings: slices.Clone(k.conflicts[key])}
		among := false
		for _, s := range k.stages[[2]string{key.Group, key.Kind}] {
			fs, judged := s.found(key)
			about.Findings = append(about.Findings, fs...)
			among = among || judged
		}
		if among {
			about.Findings = append(about.Findings, k.judge.Among(key)...)
		}
		changes = append(changes, about)
	}
	k.report = k.report.With(changes...)
}

// builder is what the making of one unit sees of the others. Whatever it looks up is another time made anew when that changes; so everything is
// looked up by its methods.
type builder struct {
	keeper   *Keeper
	cfg      Config
	read     func(input)
	findings []finding.Finding
	judged   bool
}

// service is the one with the hostname, nil when there is none.
func (b *builder) service(hostname string) *model.Service {
	b.read(input{what: serviceNamed, a: hostname})
	if svc := b.keeper.hosts[hostname]; svc != nil {
		return svc.Service
	}
	return nil
}

// external is the host outside of the mesh that was declared by the name, nil when none was.
func (b *builder) external(host string) *model.External {
	b.read(input{what: externalNamed, a: host})
	if all := b.keeper.externals[host]; len(all) > 0 {
		return all[0]
	}
	return nil
}

// object is any object, nil when it is not there.
func (b *builder) object(group, kind, namespace, name string) *objects.Object {
	key := objects.Key{Group: group, Kind: kind, Namespace: namespace, Name: name}
	b.read(objectInput(key))
	return b.keeper.set.Get(key)
}

func objectInput(key objects.Key) input {
	return input{what: objectNamed, a: key.Kind + "." + key.Group, b: key.Namespace + "/" + key.Name}
}

// kind is all objects of a kind. Only for kinds of which there are few: the unit is made anew when any of them changes.
func (b *builder) kind(group, kind string) []*objects.Object {
	b.read(kindInput(group, kind))
	return b.keeper.set.Kind(group, kind)
}

func kindInput(group, kind string) input { return input{what: kindNamed, a: group, b: kind} }

// pod is the one of the name, nil when there is none that runs or will.
func (b *builder) pod(key model.WorkloadKey) *pod {
	b.read(input{what: podNamed, a: key.Namespace, b: key.Name})
	return b.keeper.pod(key)
}

func (k *Keeper) pod(key model.WorkloadKey) *pod {
	kept, _ := k.pods.kept.Kept(objects.Key{Kind: "Pod", Namespace: key.Namespace, Name: key.Name})
	return kept.value
}

// podAt is the pod that an address means.
func (b *builder) podAt(address string) *pod {
	b.read(input{what: podAt, a: address})
	who, ok := b.keeper.placed.holder(address)
	if !ok {
		return nil
	}
	return b.keeper.pod(model.WorkloadKey{Namespace: who.Namespace, Name: who.Name})
}

// find records a finding about the object that is being looked at.
func (b *builder) find(o *objects.Object, code finding.Code, severity finding.Severity, field, message, hint string) {
	b.findings = append(b.findings, o.Find(code, severity, field, message, hint))
}

// judge asks check about o by itself, and says whether o may be used.
func (b *builder) judge(o *objects.Object) bool {
	b.judged = true
	fs := b.keeper.judge.Object(o)
	b.findings = append(b.findings, fs...)
	return !finding.HasErrors(fs)
}

func refOf(o *objects.Object) model.Ref {
	return model.Ref{Kind: o.GVK.Kind, Namespace: o.Value.GetNamespace(), Name: o.Value.GetName()}
}

func compareRefs(a, b model.Ref) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
