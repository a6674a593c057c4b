// Package store creates, replaces, applies, gets, lists, deletes and dry-runs objects on the API server.
//
// In: objects of any kind the server knows, as unstructured values. Out: what the server made of them, or its error unchanged, so that the
// caller can say which object of which file it is about. Every write asks for the server's strict validation and carries our field manager.
package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"

	"github.com/meshctl/meshctl/internal/kube"
)

// FieldManager is the name our writes carry in managedFields.
const FieldManager = "meshctl"

// Store reads and writes objects of one cluster.
type Store struct {
	client *kube.Client
}

// New is a store over the cluster that client speaks to.
func New(client *kube.Client) *Store { return &Store{client: client} }

// Target is where an object lives: its resource and, for namespaced kinds, its namespace.
type Target struct {
	Resource  schema.GroupVersionResource
	Namespace string
	Name      string
	api       dynamic.ResourceInterface
}

// Place finds the resource of obj's kind, and puts a namespaced object without namespace into the client's. A kind the server does not have
// is a meta.NoKindMatchError.
func (s *Store) Place(obj *unstructured.Unstructured) (Target, error) {
	gvk := obj.GroupVersionKind()
	mapping, err := s.client.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return Target{}, err
	}
	t := Target{Resource: mapping.Resource, Name: obj.GetName(), api: s.client.Dynamic.Resource(mapping.Resource)}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		obj.SetNamespace("")
		return t, nil
	}
	if obj.GetNamespace() == "" {
		obj.SetNamespace(s.client.Namespace)
	}
	t.Namespace = obj.GetNamespace()
	t.api = s.client.Dynamic.Resource(mapping.Resource).Namespace(t.Namespace)
	return t, nil
}

// Refresh forgets what is known of the server's kinds: one may have just been defined.
func (s *Store) Refresh() { meta.MaybeResetRESTMapper(s.client.Mapper) }

func dryRun(on bool) []string {
	if on {
		return []string{metav1.DryRunAll}
	}
	return nil
}

// Create makes the object; with dry, the server only says whether it would.
func (s *Store) Create(ctx context.Context, t Target, obj *unstructured.Unstructured, dry bool) (*unstructured.Unstructured, error) {
	return t.api.Create(ctx, obj, metav1.CreateOptions{DryRun: dryRun(dry), FieldManager: FieldManager, FieldValidation: metav1.FieldValidationStrict})
}

// Replace puts the object in place of the stored one, which must exist. Without a resourceVersion of its own it replaces whatever is stored.
func (s *Store) Replace(ctx context.Context, t Target, obj *unstructured.Unstructured, dry bool) (*unstructured.Unstructured, error) {
	options := metav1.UpdateOptions{DryRun: dryRun(dry), FieldManager: FieldManager, FieldValidation: metav1.FieldValidationStrict}
	if obj.GetResourceVersion() != "" {
		return t.api.Update(ctx, obj, options)
	}
	var out *unstructured.Unstructured
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		stored, err := t.api.Get(ctx, t.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		next := obj.DeepCopy()
		next.SetResourceVersion(stored.GetResourceVersion())
		out, err = t.api.Update(ctx, next, options)
		return err
	})
	return out, err
}

// Outcome is what an apply did.
type Outcome string

// The outcomes.
const (
	Created    Outcome = "created"
	Configured Outcome = "configured"
	Unchanged  Outcome = "unchanged"
)

// Apply merges the object into the stored one on the server's side; force takes over fields that others manage.
func (s *Store) Apply(ctx context.Context, t Target, obj *unstructured.Unstructured, force, dry bool) (*unstructured.Unstructured, Outcome, error) {
	outcome := Configured
	before, err := t.api.Get(ctx, t.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		outcome = Created
	case err != nil:
		return nil, "", err
	}
	body, err := json.Marshal(obj)
	if err != nil {
		return nil, "", fmt.Errorf("encoding %s %s: %w", obj.GetKind(), t.Name, err)
	}
	after, err := t.api.Patch(ctx, t.Name, types.ApplyPatchType, body, metav1.PatchOptions{
		DryRun: dryRun(dry), FieldManager: FieldManager, Force: &force, FieldValidation: metav1.FieldValidationStrict,
	})
	if err != nil {
		return nil, "", err
	}
	if outcome == Configured && same(before, after, dry) {
		outcome = Unchanged
	}
	return after, outcome, nil
}

// same says whether an apply changed nothing. A dry run keeps the revision, so there the contents are compared.
func same(before, after *unstructured.Unstructured, dry bool) bool {
	if !dry {
		return before.GetResourceVersion() == after.GetResourceVersion()
	}
	before, after = before.DeepCopy(), after.DeepCopy()
	for _, u := range []*unstructured.Unstructured{before, after} {
		u.SetManagedFields(nil)
		u.SetGeneration(0)
	}
	return equality.Semantic.DeepEqual(before.Object, after.Object)
}

// Get reads one object.
func (s *Store) Get(ctx context.Context, t Target) (*unstructured.Unstructured, error) {
	return t.api.Get(ctx, t.Name, metav1.GetOptions{})
}

// Delete removes exactly the object t names that has uid: another one that came in its place meanwhile stays, and the error is a conflict.
func (s *Store) Delete(ctx context.Context, t Target, uid types.UID, cascade metav1.DeletionPropagation, dry bool) error {
	if t.Name == "" {
		return fmt.Errorf("deleting from %s: no name given, and a whole collection is never deleted", t.Resource.Resource)
	}
	return t.api.Delete(ctx, t.Name, metav1.DeleteOptions{
		DryRun: dryRun(dry), PropagationPolicy: &cascade, Preconditions: &metav1.Preconditions{UID: &uid},
	})
}

// Gone waits until the object that had uid is no longer there; another one of the same name does not count.
func (s *Store) Gone(ctx context.Context, t Target, uid types.UID) error {
	return wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		obj, err := t.api.Get(ctx, t.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return true, nil
		case err != nil:
			return false, err
		}
		return uid != "" && obj.GetUID() != uid, nil
	})
}
