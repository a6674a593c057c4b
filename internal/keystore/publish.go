package keystore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Where the root certificate is published in every namespace.
const (
	RootConfigMap = "istio-ca-root-cert"
	RootKey       = "root-cert.pem"
)

// Publisher keeps the root certificate in a ConfigMap of every namespace: pods mount it, so it is there soon after the namespace is, and a
// copy that was changed or deleted is put right.
type Publisher struct {
	client     kubernetes.Interface
	root       string
	log        *slog.Logger
	namespaces cache.SharedIndexInformer
	copies     cache.SharedIndexInformer
	queue      workqueue.TypedRateLimitingInterface[string]
}

// NewPublisher prepares the publication of root.
func NewPublisher(client kubernetes.Interface, root []byte, log *slog.Logger) (*Publisher, error) {
	all := informers.NewSharedInformerFactory(client, 0)
	named := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, RootConfigMap).String()
	}))
	p := &Publisher{
		client: client, root: string(root), log: log,
		namespaces: all.Core().V1().Namespaces().Informer(), copies: named.Core().V1().ConfigMaps().Informer(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 30*time.Second)),
	}
	enqueue := func(name func(metav1.Object) string) cache.ResourceEventHandler {
		add := func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if o, ok := obj.(metav1.Object); ok {
				p.queue.Add(name(o))
			}
		}
		return cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, obj any) { add(obj) }, DeleteFunc: add}
	}
	_, err := p.namespaces.AddEventHandler(enqueue(metav1.Object.GetName))
	_, err2 := p.copies.AddEventHandler(enqueue(metav1.Object.GetNamespace))
	return p, errors.Join(err, err2)
}

// Run publishes until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.queue.ShutDown()
	wg.Go(func() { p.namespaces.RunWithContext(ctx) })
	wg.Go(func() { p.copies.RunWithContext(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), p.namespaces.HasSynced, p.copies.HasSynced) {
		return nil // ctx ended
	}
	for range 4 {
		wg.Go(func() {
			for p.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	return nil
}

func (p *Publisher) next(ctx context.Context) bool {
	namespace, quit := p.queue.Get()
	if quit {
		return false
	}
	defer p.queue.Done(namespace)
	if err := p.publish(ctx, namespace); err != nil && ctx.Err() == nil {
		p.log.Warn("publishing the root certificate", "namespace", namespace, "error", err)
		p.queue.AddRateLimited(namespace)
		return true
	}
	p.queue.Forget(namespace)
	return true
}

func (p *Publisher) publish(ctx context.Context, namespace string) error {
	obj, exists, err := p.namespaces.GetStore().GetByKey(namespace)
	if err != nil || !exists {
		return err
	}
	if ns, ok := obj.(*corev1.Namespace); ok && ns.DeletionTimestamp != nil {
		return nil
	}
	maps := p.client.CoreV1().ConfigMaps(namespace)
	var current *corev1.ConfigMap
	if obj, exists, err := p.copies.GetStore().GetByKey(namespace + "/" + RootConfigMap); err != nil {
		return err
	} else if exists {
		current, _ = obj.(*corev1.ConfigMap)
	}
	if current == nil {
		_, err := maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: RootConfigMap, Namespace: namespace}, Data: map[string]string{RootKey: p.root},
		}, metav1.CreateOptions{})
		switch {
		case err == nil:
			p.log.Info("published the root certificate", "namespace", namespace)
		case apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return nil // another replica was first, or the namespace is going; the watch tells what is left to do
		}
		return err
	}
	if len(current.Data) == 1 && current.Data[RootKey] == p.root && len(current.BinaryData) == 0 {
		return nil
	}
	if current.Immutable != nil && *current.Immutable {
		return fmt.Errorf("ConfigMap %s/%s is immutable and holds something else", namespace, RootConfigMap)
	}
	update := current.DeepCopy()
	update.Data, update.BinaryData = map[string]string{RootKey: p.root}, nil
	_, err = maps.Update(ctx, update, metav1.UpdateOptions{})
	switch {
	case err == nil:
		p.log.Info("repaired the published root certificate", "namespace", namespace)
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil // seen again by the watch
	}
	return err
}
