package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// kubelet answers port-forward requests the way a server without websockets does: it echoes what port 80 gets and refuses every other port.
func kubelet(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1/namespaces/ns/pods/pod/portforward" || strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "no such thing", http.StatusBadRequest)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 2)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	failures, data := <-streams, <-streams
	if data.Headers().Get(corev1.PortHeader) != "80" {
		_, _ = io.WriteString(failures, "connection refused\n")
		_ = failures.Close()
		<-conn.CloseChan()
		return
	}
	_, _ = io.Copy(data, data)
	_ = data.Close()
}

func TestDialPod(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(kubelet))
	defer server.Close()
	client := &Client{Config: &rest.Config{Host: server.URL}}

	t.Run("bytes go there and back, over SPDY where the server has no websockets", func(t *testing.T) {
		conn, err := client.DialPod(t.Context(), "ns", "pod", 80)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	t.Run("a port that nobody listens on is told in the kubelet's words", func(t *testing.T) {
		conn, err := client.DialPod(t.Context(), "ns", "pod", 81)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.ReadAll(conn); err == nil || err.Error() != "connection refused" {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a pod that is not there is an error", func(t *testing.T) {
		if _, err := client.DialPod(t.Context(), "ns", "nobody", 80); err == nil {
			t.Fatal("no error")
		}
	})
}

func TestDialPodGivesUpOnAServerThatDoesNotAnswer(t *testing.T) {
	held := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(held)
	client := &Client{Config: &rest.Config{Host: server.URL}}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := client.DialPod(ctx, "ns", "pod", 80)
	if err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(start); took > ForwardTimeout {
		t.Fatalf("it took %s", took)
	}
	if errors.Is(err, context.Canceled) {
		t.Fatal("a deadline is not an interruption")
	}
}
