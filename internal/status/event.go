package status

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// tell makes an Event of each warning about an Ingress, once: the status of an Ingress has no place for words, and `kubectl describe` shows Events. It says
// whether all went well.
func (w *Writer) tell(ctx context.Context, view *index, o *objects.Object, in *networkingv1.Ingress) bool {
	now := map[string]bool{}
	good := true
	for _, f := range view.findings(o) {
		if f.Severity < finding.Warning || len(now) == maxFindings {
			continue
		}
		message := sentence(f)
		if f.Hint != "" {
			message += " (" + f.Hint + ")"
		}
		sum := sha256.Sum256([]byte(string(in.UID) + string(f.Code) + message))
		id := hex.EncodeToString(sum[:8])
		now[id] = true
		if w.told[o.Key()][id] {
			continue
		}
		at := metav1.Now()
		_, err := w.cfg.Kube.CoreV1().Events(in.Namespace).Create(ctx, &corev1.Event{
			// The same name for the same words: another replica, or the next one, says nothing twice.
			ObjectMeta: metav1.ObjectMeta{Namespace: in.Namespace, Name: cutName(in.Name) + "." + id},
			InvolvedObject: corev1.ObjectReference{
				APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "Ingress", Namespace: in.Namespace, Name: in.Name, UID: in.UID, ResourceVersion: in.ResourceVersion,
			},
			Type: corev1.EventTypeWarning, Reason: reasonOf(f.Code), Message: cut(message), FirstTimestamp: at, LastTimestamp: at, Count: 1,
			Source: corev1.EventSource{Component: w.cfg.Manager}, ReportingController: w.cfg.Manager, ReportingInstance: w.cfg.Name,
		}, metav1.CreateOptions{})
		switch {
		case err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || ctx.Err() != nil:
		case apierrors.IsForbidden(err):
			w.cfg.Log.Warn("telling of an Ingress by an Event", "object", o.Ref().String(), "error", err) // trying again would not help
		default:
			w.cfg.Log.Warn("telling of an Ingress by an Event", "object", o.Ref().String(), "error", err)
			delete(now, id)
			good = false
		}
	}
	if len(now) > 0 {
		w.told[o.Key()] = now
	} else {
		delete(w.told, o.Key())
	}
	return good
}

// cutName leaves room for what makes an Event's name unique.
func cutName(name string) string { return name[:min(len(name), 200)] }

// reasonOf is the name of a code.
func reasonOf(code finding.Code) string {
	for _, d := range finding.Registry() {
		if d.Code == code {
			return d.Name
		}
	}
	return string(code)
}
