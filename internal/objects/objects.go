// Package objects is a frozen, indexed set of Kubernetes and mesh objects, each knowing its file position or cluster version.
//
// In: objects decoded by the manifest room (from files) or the watch room (from a cluster). Out: an immutable Set that check and ingest read.
package objects

import (
	"cmp"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/meshctl/meshctl/internal/finding"
)

// Key names an object within a Set.
type Key struct {
	Group     string
	Kind      string
	Namespace string
	Name      string
}

// Compare orders keys by group, kind, namespace and name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Group, o.Group), cmp.Compare(k.Kind, o.Kind), cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}

// Value is an object of any kind: a typed one where the kind is known here, *unstructured.Unstructured otherwise.
type Value interface {
	metav1.Object
	runtime.Object
}

// Locator finds the file position of a field path such as spec.route[0].weight; the nearest enclosing field's when that one is absent.
type Locator interface {
	Locate(field string) finding.Position
}

// Origin is where an object came from: a document of a file, or the cluster at a resource version.
type Origin struct {
	File string
	// Document counts the documents of File from 1.
	Document int
	// Version is the cluster's resourceVersion; empty for an object from a file.
	Version string
	// Fields locates fields in File; nil for an object from a cluster.
	Fields Locator
}

// Position of field within the origin.
func (o Origin) Position(field string) finding.Position {
	if o.Fields == nil {
		return finding.Position{File: o.File}
	}
	return o.Fields.Locate(field)
}

// Object is one member of a Set. It and what it points to are never modified after it was made.
type Object struct {
	GVK    schema.GroupVersionKind
	Value  Value
	Origin Origin
	// Content is what the object's document says and nothing else, with the current names of fields; nil for an object from a cluster.
	Content map[string]any
	// Unread are the paths of fields that Value lacks because reading them ended in a finding.
	Unread []string
}

// Unstructured is a copy of the object in the form that is sent to the API server. Fields that the document leaves out are absent, not zero.
func (o *Object) Unstructured() (*unstructured.Unstructured, error) {
	if o.Content != nil {
		return &unstructured.Unstructured{Object: runtime.DeepCopyJSON(o.Content)}, nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o.Value)
	if err != nil {
		return nil, fmt.Errorf("converting %s: %w", o.Ref(), err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(o.GVK)
	return u, nil
}

// Key of the object.
func (o *Object) Key() Key {
	return Key{Group: o.GVK.Group, Kind: o.GVK.Kind, Namespace: o.Value.GetNamespace(), Name: o.Value.GetName()}
}

// Ref names the object in findings.
func (o *Object) Ref() finding.Object {
	return finding.Object{Kind: o.GVK.Kind, Namespace: o.Value.GetNamespace(), Name: o.Value.GetName()}
}

// Find makes a finding about field of the object.
func (o *Object) Find(code finding.Code, severity finding.Severity, field, message, hint string) finding.Finding {
	return finding.Finding{Code: code, Severity: severity, Object: o.Ref(), Field: field, Position: o.Origin.Position(field), Message: message, Hint: hint}
}
