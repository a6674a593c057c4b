package identity

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/meshctl/meshctl/internal/model"
)

type callerKey struct{}

// FromContext is the caller the interceptor has verified.
func FromContext(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// StreamInterceptor lets a stream in when its bearer token is accepted, before a single message of it is read.
func StreamInterceptor(v Verifier, log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		token, err := bearer(ss.Context())
		if err != nil {
			return err
		}
		caller, err := v.Verify(ss.Context(), token)
		switch {
		case errors.Is(err, ErrInvalidToken):
			log.Warn("stream refused", "method", info.FullMethod, "reason", err.Error())
			return status.Error(codes.Unauthenticated, err.Error())
		case err != nil:
			log.Warn("stream refused for now", "method", info.FullMethod, "error", err)
			return status.Error(codes.Unavailable, "the token could not be verified, try again")
		}
		return handler(srv, verified{ss, context.WithValue(ss.Context(), callerKey{}, caller)})
	}
}

type verified struct {
	grpc.ServerStream
	ctx context.Context
}

func (v verified) Context() context.Context { return v.ctx }

func bearer(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) != 1 {
		return "", status.Error(codes.Unauthenticated, "one authorization header with a bearer token is needed")
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return "", status.Error(codes.Unauthenticated, "the authorization header must hold a bearer token")
	}
	return strings.TrimSpace(token), nil
}

// Pods looks a pod up in what the control plane knows of the cluster; false when it knows of none.
type Pods func(namespace, name string) (*corev1.Pod, bool)

// Admission decides which proxy a caller may be.
type Admission struct {
	Pods Pods
	// Namespace is the control plane's: gateways run there, each under its own service account.
	Namespace string
	// Wait bounds how long a pod may take to become known: a proxy can be quicker than the news of its pod.
	Wait time.Duration
	Log  *slog.Logger
}

// Admit says which proxy the verified caller of ctx is. The node id it gives decides only its role.
func (a *Admission) Admit(ctx context.Context, nodeID string) (model.Proxy, error) {
	caller, ok := FromContext(ctx)
	if !ok {
		return model.Proxy{}, status.Error(codes.Unauthenticated, "no verified caller")
	}
	node, err := ParseNode(nodeID)
	if err != nil {
		return model.Proxy{}, status.Error(codes.InvalidArgument, err.Error())
	}
	refuse := func(reason string) (model.Proxy, error) {
		a.Log.Warn("proxy refused", "reason", reason, "node", nodeID, "namespace", caller.Namespace, "pod", caller.Pod, "serviceAccount", caller.ServiceAccount)
		return model.Proxy{}, status.Error(codes.PermissionDenied, reason)
	}
	if node.Pod != caller.Pod || node.Namespace != caller.Namespace {
		return refuse("the node id names another pod than the token")
	}
	if account := gatewayAccount(node.Type); account != "" && (caller.Namespace != a.Namespace || caller.ServiceAccount != account) {
		return refuse("a proxy of type " + string(node.Type) + " must run in namespace " + a.Namespace + " as service account " + account)
	}
	pod, err := a.await(ctx, caller)
	if err != nil {
		return model.Proxy{}, err
	}
	if string(pod.UID) != caller.PodUID || pod.Spec.ServiceAccountName != caller.ServiceAccount {
		return refuse("the pod is not the one the token was issued to")
	}
	proxy := model.Proxy{Type: node.Type, Workload: model.WorkloadKey{Namespace: pod.Namespace, Name: pod.Name}, Labels: pod.Labels}
	for _, ip := range pod.Status.PodIPs {
		proxy.Addresses = append(proxy.Addresses, ip.IP)
	}
	return proxy, nil
}

// Holds says whether the pod that the verified caller of ctx proved to be still exists. Who was admitted without proof stays.
func (a *Admission) Holds(ctx context.Context) bool {
	caller, ok := FromContext(ctx)
	if !ok {
		return true
	}
	pod, ok := a.Pods(caller.Namespace, caller.Pod)
	return ok && string(pod.UID) == caller.PodUID
}

// gatewayAccount is the service account that a gateway of the type must have; empty for other proxies.
func gatewayAccount(t model.ProxyType) string {
	switch t {
	case model.Ingress:
		return "istio-ingress-service-account"
	case model.Egress:
		return "istio-egress-service-account"
	case model.Sidecar:
	}
	return ""
}

// await returns the caller's pod once it is known with an address.
func (a *Admission) await(ctx context.Context, c Caller) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, a.Wait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if pod, ok := a.Pods(c.Namespace, c.Pod); ok && (len(pod.Status.PodIPs) > 0 || string(pod.UID) != c.PodUID) {
			return pod, nil
		}
		select {
		case <-ctx.Done():
			return nil, status.Errorf(codes.Unavailable, "pod %s/%s is not known yet, try again", c.Namespace, c.Pod)
		case <-tick.C:
		}
	}
}

// Trusting admits any proxy under the name it gives itself. It is for measuring over loopback only, so such a proxy is told no secrets.
func Trusting(_ context.Context, nodeID string) (model.Proxy, error) {
	node, err := ParseNode(nodeID)
	if err != nil {
		return model.Proxy{}, status.Error(codes.InvalidArgument, err.Error())
	}
	proxy := model.Proxy{Type: node.Type, Workload: model.WorkloadKey{Namespace: node.Namespace, Name: node.Pod}, Unproven: true}
	if node.Address != "" {
		proxy.Addresses = []string{node.Address}
	}
	return proxy, nil
}
