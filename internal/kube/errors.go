package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Unreachable says whether err means that the API server was not reached or stopped answering, as opposed to having answered no.
func Unreachable(err error) bool {
	var dns *net.DNSError
	var op *net.OpError
	var u *url.Error
	return errors.As(err, &dns) || errors.As(err, &op) || errors.As(err, &u) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, syscall.ECONNREFUSED) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsServiceUnavailable(err)
}

// Explain turns an error of talking to the API server into one line that says what happened and what to try.
func (c *Client) Explain(err error) error {
	server := "the Kubernetes API server at " + c.Config.Host
	if c.Context != "" {
		server += fmt.Sprintf(" (context %q)", c.Context)
	}
	var dns *net.DNSError
	var unknownCA x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &dns):
		return fmt.Errorf("reaching %s: no such host; check the address in the kubeconfig", server)
	case errors.As(err, &unknownCA), errors.As(err, &hostname):
		return fmt.Errorf("reaching %s: its certificate is not the one the kubeconfig trusts: %s", server, last(err))
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("reaching %s: connection refused; check that it runs, or choose another with --context", server)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("reaching %s: no answer in time (--request-timeout)", server)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s does not accept the credentials of the kubeconfig; log in again or choose another context", server)
	case Unreachable(err):
		return fmt.Errorf("reaching %s: %s", server, last(err))
	default:
		return err
	}
}

// last is the innermost reason of a chain of wrapped errors, on one line; the outer ones repeat the URL.
func last(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return oneLine(strings.TrimSpace(err.Error()))
		}
		err = inner
	}
}
