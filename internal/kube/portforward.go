package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// ForwardTimeout bounds how long a port-forward may take to stand; one that cannot be had must not hold the user up.
const ForwardTimeout = 5 * time.Second

// DialPod connects to a port inside a pod through the API server. No local port is opened: the connection is the forwarded stream itself.
func (c *Client) DialPod(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, ForwardTimeout)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := c.dialPod(namespace, pod, port)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, fmt.Errorf("forwarding to port %d of pod %s/%s: %w", port, namespace, pod, r.err)
		}
		return r.conn, nil
	case <-ctx.Done():
		go func() { // the dialer knows no context; close what it may still deliver
			if r := <-done; r.conn != nil {
				_ = r.conn.Close()
			}
		}()
		return nil, fmt.Errorf("forwarding to port %d of pod %s/%s: no answer in time", port, namespace, pod)
	}
}

func (c *Client) dialPod(namespace, pod string, port int) (net.Conn, error) {
	config := rest.CopyConfig(c.Config)
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = plainSerializer()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	url := client.Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	roundTripper, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	overSPDY := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: roundTripper}, http.MethodPost, url)
	overWebsocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, config)
	if err != nil {
		return nil, err
	}
	dialer := portforward.NewFallbackDialerForStreaming(overWebsocket, overSPDY, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	streams, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	failures, err := streams.CreateStream(headers)
	if err != nil {
		_ = streams.Close()
		return nil, err
	}
	_ = failures.Close() // nothing is written to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := streams.CreateStream(headers)
	if err != nil {
		_ = streams.Close()
		return nil, err
	}
	conn := &podConn{Stream: data, connection: streams, refused: make(chan error, 1)}
	go conn.watch(failures)
	return conn, nil
}

// podConn is a forwarded stream as a net.Conn. It has no deadlines; who needs one closes it.
type podConn struct {
	httpstream.Stream
	connection httpstream.Connection
	refused    chan error
}

// watch reads what the kubelet says about the stream: it writes the reason there when the port refuses the connection.
func (p *podConn) watch(failures io.Reader) {
	text, err := io.ReadAll(failures)
	if err == nil && len(text) > 0 {
		p.refused <- errors.New(strings.TrimSpace(string(text)))
		_ = p.connection.Close()
	}
}

func (p *podConn) Read(b []byte) (int, error) {
	n, err := p.Stream.Read(b)
	if err != nil {
		select {
		case refused := <-p.refused:
			return n, refused
		default:
		}
	}
	return n, err
}

func (p *podConn) Close() error {
	_ = p.Reset()
	return p.connection.Close()
}

func (*podConn) LocalAddr() net.Addr              { return podAddr{} }
func (*podConn) RemoteAddr() net.Addr             { return podAddr{} }
func (*podConn) SetDeadline(time.Time) error      { return nil }
func (*podConn) SetReadDeadline(time.Time) error  { return nil }
func (*podConn) SetWriteDeadline(time.Time) error { return nil }

type podAddr struct{}

func (podAddr) Network() string { return "portforward" }
func (podAddr) String() string  { return "pod" }
