// Package manifest turns bytes into objects, strictly.
//
// In: the text of one file, YAML or JSON, of any number of documents. Out: its objects, each knowing the position of every field, and findings
// about everything that could not be read as written. A document travels through text (one stream of YAML or JSON, cut into documents), tree
// (nodes to plain values), kinds (what the object is), upgrade (retired API versions) and strict (each field against the kind's Go type).
package manifest

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// The limits of one file. What is beyond them is refused with a finding.
const (
	MaxBytes     = 8 << 20
	MaxDocuments = 10_000
	MaxDepth     = 200
	MaxNodes     = 1_000_000
	MaxFindings  = 100
)

// Options change how a file is read. The zero value is the usual way.
type Options struct {
	// KeepAPIVersions leaves API versions that Kubernetes no longer serves as they are.
	KeepAPIVersions bool
	// Namespace, when set, is the only one an object may name.
	Namespace string
	// DefaultNamespace is given to namespaced objects that name none, when Namespace is not set.
	DefaultNamespace string
	// IdentityOnly reads of each object what it is and how it is called, and judges nothing else: enough to delete it.
	IdentityOnly bool
}

// Decode reads data, the content of the file called name ("-" is standard input). Nothing may be written anywhere when the findings have
// errors; an object with an unknown field is still returned, without that field, so that the rest of it can be judged in the same run.
func Decode(name string, data []byte, opt Options) ([]*objects.Object, []finding.Finding) {
	r := &reader{name: name, opt: opt, types: map[reflect.Type]map[string]reflect.Type{}}
	if r.checkText(data) {
		r.documents(data)
	}
	r.findings = append(r.findings, duplicates(r.objects)...)
	return r.objects, bounded(name, r.findings, r.hidden)
}

// bounded sorts findings and keeps as many as a reader can use, the grave ones first. What is left out, with the hidden ones that never were kept,
// is said in one line as grave as the gravest of it: notices, however many, refuse nothing.
func bounded(name string, fs []finding.Finding, hidden int) []finding.Finding {
	finding.Sort(fs)
	if len(fs) <= MaxFindings {
		return fs
	}
	slices.SortStableFunc(fs, func(a, b finding.Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	gravest := fs[MaxFindings].Severity
	rest := len(fs) - MaxFindings + hidden
	fs = fs[:MaxFindings:MaxFindings]
	finding.Sort(fs)
	return append(fs, finding.Finding{
		Code: finding.TooLarge, Severity: gravest, Position: finding.Position{File: name},
		Message: fmt.Sprintf("%d more findings are not shown", rest),
	})
}

// duplicates finds objects that are there twice.
func duplicates(objs []*objects.Object) []finding.Finding {
	var fs []finding.Finding
	first := map[objects.Key]*objects.Object{}
	for _, o := range objs {
		if o.Value.GetName() == "" {
			continue
		}
		before, twice := first[o.Key()]
		if !twice {
			first[o.Key()] = o
			continue
		}
		fs = append(fs, o.Find(finding.DuplicateObject, finding.Error, "metadata.name",
			fmt.Sprintf("the object is already at %s", before.Origin.Position("metadata.name")), "remove or rename one of them"))
	}
	return fs
}

// reader gathers what one file yields.
type reader struct {
	name     string
	opt      Options
	document int
	nodes    int
	stopped  bool
	// counts are the findings so far by severity, of which hidden are not kept.
	counts [finding.Error + 1]int
	hidden int
	// types remembers the fields of the Go types met so far.
	types    map[reflect.Type]map[string]reflect.Type
	objects  []*objects.Object
	findings []finding.Finding
}

func (r *reader) find(f finding.Finding) {
	if !r.enough(f.Severity) {
		r.add(f)
	}
}

func (r *reader) add(f finding.Finding) {
	if f.Position.File == "" {
		f.Position.File = r.name
	}
	r.findings = append(r.findings, f)
}

// enough counts a finding, and says of one that it need not be kept, nor its position be looked for: garbage makes a finding a line. Errors in
// such numbers end the reading; notices do not, for the objects they are about are good.
func (r *reader) enough(s finding.Severity) bool {
	r.counts[s]++
	if r.counts[s] <= 10*MaxFindings {
		return false
	}
	if s == finding.Error {
		r.stopped = true
	}
	r.hidden++
	return true
}

// root takes one document, whose lines begin after offset lines of the file.
func (r *reader) root(n *yaml.Node, offset int) {
	if r.stopped {
		return
	}
	if n.Kind == yaml.DocumentNode {
		if len(n.Content) == 0 {
			return
		}
		n = n.Content[0]
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	r.document++
	if r.document > MaxDocuments {
		r.find(finding.Finding{Code: finding.TooLarge, Severity: finding.Error, Message: fmt.Sprintf("the file has more than %d documents", MaxDocuments), Hint: "split it"})
		r.stopped = true
		return
	}
	t := &tree{reader: r, offset: offset}
	value, ok := t.value(n, "", 0)
	if ok {
		r.item(value, &locator{file: r.name, node: n, offset: offset})
	}
}

// item takes one value of a document: an object, or a list of them.
func (r *reader) item(value any, at *locator) {
	if r.stopped {
		return
	}
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 {
			return
		}
		if items, ok := listItems(v); ok {
			for i, item := range items {
				r.inherit(v, item)
				r.item(item, at.below(finding.Item("items", i)))
			}
			return
		}
		r.object(v, at)
	case []any:
		for i, item := range v {
			r.item(item, at.below(finding.Item("", i)))
		}
	case nil:
	default:
		r.find(finding.Finding{
			Code: finding.WrongType, Severity: finding.Error, Position: at.Locate(""),
			Message: fmt.Sprintf("the document is %s, not an object", describe(value)), Hint: "an object begins with apiVersion, kind and metadata",
		})
	}
}

// listItems are the members of a List, or of a list of one kind such as RouteRuleList.
func listItems(v map[string]any) ([]any, bool) {
	kind, _ := v["kind"].(string)
	items, isList := v["items"].([]any)
	if !strings.HasSuffix(kind, "List") || (!isList && v["items"] != nil) {
		return nil, false
	}
	_, named := v["items"]
	return items, named
}

// inherit gives an item of a list of one kind the kind that the list says once for all.
func (r *reader) inherit(list map[string]any, item any) {
	m, ok := item.(map[string]any)
	kind, _ := strings.CutSuffix(list["kind"].(string), "List")
	if !ok || kind == "" || m["kind"] != nil {
		return
	}
	m["kind"] = kind
	if m["apiVersion"] == nil && list["apiVersion"] != nil {
		m["apiVersion"] = list["apiVersion"]
	}
}

// object takes one object apart, says all that is wrong with it, and keeps it unless it cannot be judged further.
func (r *reader) object(content map[string]any, at *locator) {
	s := &subject{reader: r, content: content, at: at}
	gvk, ok := s.identify()
	if !ok {
		return
	}
	if r.opt.IdentityOnly {
		s.content = identityOf(s.content)
	}
	if !r.opt.KeepAPIVersions {
		gvk = s.upgrade(gvk)
	}
	var value objects.Value
	if !r.opt.IdentityOnly {
		value = newTyped(gvk)
	}
	w := &walker{subject: s, mesh: isMesh(gvk)}
	if value != nil {
		s.content = w.object(s.content, value)
	} else {
		w.metadata(s.content)
	}
	s.name(gvk)
	s.namespace(gvk)
	if s.broken {
		return
	}
	if value == nil {
		value = &unstructured.Unstructured{Object: runtime.DeepCopyJSON(s.content)}
	} else if err := runtime.DefaultUnstructuredConverter.FromUnstructured(s.content, value); err != nil {
		// The walk above checks what this conversion needs; what it still refuses is said in its own words.
		s.find(finding.WrongType, finding.Error, "", err.Error(), "")
		return
	}
	r.objects = append(r.objects, &objects.Object{
		GVK: gvk, Value: value, Content: s.content, Unread: s.unread,
		Origin: objects.Origin{File: r.name, Document: r.document, Fields: at},
	})
}

// identityOf is what of content says which object it is. A generated name is none.
func identityOf(content map[string]any) map[string]any {
	out := map[string]any{"apiVersion": content["apiVersion"], "kind": content["kind"]}
	meta, ok := content["metadata"].(map[string]any)
	if !ok {
		return out
	}
	own := map[string]any{}
	for _, key := range []string{"name", "namespace"} {
		if v, has := meta[key]; has {
			own[key] = v
		}
	}
	out["metadata"] = own
	return out
}

// subject is the object being read.
type subject struct {
	*reader
	content map[string]any
	at      *locator
	ref     finding.Object
	// broken is set when the object cannot be judged further.
	broken bool
	// unread are the fields that are not in content because of a finding.
	unread []string
}

func (s *subject) find(code finding.Code, severity finding.Severity, field, message, hint string) {
	if severity == finding.Error && code != finding.UnknownField {
		s.broken = true
	}
	if s.enough(severity) {
		return
	}
	s.add(finding.Finding{Code: code, Severity: severity, Object: s.ref, Field: field, Position: s.at.Locate(field), Message: message, Hint: hint})
}

func (s *subject) upgrade(gvk schema.GroupVersionKind) schema.GroupVersionKind {
	from, to, notes, changed := upgrade(s.content)
	if !changed {
		return gvk
	}
	message := fmt.Sprintf("%s is no longer served by Kubernetes, read as %s", from, to)
	if len(notes) > 0 {
		message += ": " + strings.Join(notes, ", ")
	}
	s.find(finding.RetiredVersion, finding.Info, "apiVersion", message, "")
	return schema.FromAPIVersionAndKind(to, gvk.Kind)
}

func (s *subject) name(gvk schema.GroupVersionKind) {
	meta, _ := s.content["metadata"].(map[string]any)
	if name, ok := meta["name"].(string); ok && name != "" {
		return
	}
	if generate, ok := meta["generateName"].(string); ok && generate != "" && !isMesh(gvk) {
		return
	}
	s.find(finding.MissingIdentity, finding.Error, "metadata.name", "the object has no name", "add metadata.name")
}

// namespace puts the object where the options say, or finds that it says otherwise.
func (s *subject) namespace(gvk schema.GroupVersionKind) {
	meta, _ := s.content["metadata"].(map[string]any)
	if meta == nil || !namespaced(gvk) {
		return
	}
	own, _ := meta["namespace"].(string)
	if s.opt.Namespace != "" && own != "" && own != s.opt.Namespace {
		s.find(finding.NamespaceClash, finding.Error, "metadata.namespace",
			fmt.Sprintf("the object's namespace %s is not the %s that was asked for", own, s.opt.Namespace), "pass --namespace="+own)
		return
	}
	if own != "" {
		return
	}
	if s.opt.Namespace != "" {
		own = s.opt.Namespace
	} else {
		own = s.opt.DefaultNamespace
	}
	if own != "" {
		meta["namespace"] = own
		s.ref.Namespace = own
	}
}
