package proxystatus

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/proxystatus"
)

func now() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }

func proxies() []proxystatus.Proxy {
	synced := proxystatus.Type{State: proxystatus.Synced, Since: now().Add(-time.Minute), Resources: 4}
	rejected := now().Add(-90 * time.Second)
	return []proxystatus.Proxy{
		{
			Name: "reviews-v1-abc", Namespace: "default", Role: "sidecar", Pilot: "istio-pilot-1", Version: "0.3.0", Connected: now().Add(-2 * time.Hour),
			Types: map[string]proxystatus.Type{
				"cds": synced, "eds": synced, "lds": {State: proxystatus.Stale, Since: now().Add(-12 * time.Second), Resources: 3},
				"rds": {State: proxystatus.Error, Since: rejected, Resources: 2, Message: "route: invalid\n  regex", Rejected: &rejected},
			},
		},
		{Name: "istio-ingress-xyz", Namespace: "istio-system", Role: "ingress", Pilot: "istio-pilot-1", Connected: now().Add(-time.Second), Types: map[string]proxystatus.Type{"cds": synced}},
	}
}

const table = `NAME                NAMESPACE      ROLE      CDS      EDS        LDS          RDS        PILOT           VERSION   AGE
reviews-v1-abc      default        sidecar   SYNCED   SYNCED     STALE(12s)   ERROR      istio-pilot-1   0.3.0     120m
istio-ingress-xyz   istio-system   ingress   SYNCED   NOT_SENT   NOT_SENT     NOT_SENT   istio-pilot-1   -         1s

reviews-v1-abc.default refused its RDS 90s ago: route: invalid regex
`

const detail = `Name:       reviews-v1-abc
Namespace:  default
Role:       sidecar
Version:    0.3.0
Pilot:      istio-pilot-1
Connected:  120m ago

TYPE   STATE        SINCE   RESOURCES
CDS    SYNCED       60s     4
EDS    SYNCED       60s     4
LDS    STALE(12s)   12s     3
RDS    ERROR        90s     2

RDS refused 90s ago:
  route: invalid
    regex
`

func TestPrint(t *testing.T) {
	for name, tc := range map[string]struct {
		proxies []proxystatus.Proxy
		detail  bool
		want    string
	}{
		"a table has a line a proxy, and the reasons of refusals below it": {proxies(), false, table},
		"one proxy is shown type by type, with the reason in full":         {proxies()[:1], true, detail},
		"no proxies are no table":                                          {nil, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := (&options{output: "table", now: now}).write(&out, tc.proxies, tc.detail); err != nil {
				t.Fatal(err)
			}
			if out.String() != tc.want {
				t.Errorf("got\n%s\nwant\n%s", out.String(), tc.want)
			}
		})
	}
	t.Run("JSON is read back as it was", func(t *testing.T) {
		var out bytes.Buffer
		if err := (&options{output: "json", now: now}).write(&out, proxies(), false); err != nil {
			t.Fatal(err)
		}
		var back []proxystatus.Proxy
		if err := json.Unmarshal(out.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		if len(back) != 2 || back[0].Types["rds"].State != proxystatus.Error {
			t.Errorf("got %+v", back)
		}
	})
}

func TestRun(t *testing.T) {
	for name, tc := range map[string]struct {
		args    []string
		fetched []proxystatus.Proxy
		errs    []error
		code    int
		stderr  string
	}{
		"a listing with refusals is still a listing":          {nil, proxies(), nil, factory.ExitOK, ""},
		"a pod of the namespace is found by its name":         {[]string{"reviews-v1-abc"}, proxies(), nil, factory.ExitOK, ""},
		"a pod elsewhere is found by name and namespace":      {[]string{"istio-ingress-xyz.istio-system"}, proxies(), nil, factory.ExitOK, ""},
		"a pod elsewhere is not found by its name alone":      {[]string{"istio-ingress-xyz"}, proxies(), nil, factory.ExitNo, ""},
		"one pilot's silence beside another's answer is told": {nil, proxies(), []error{errors.New("pilot 2 is silent")}, factory.ExitError, "error: pilot 2 is silent\n"},
		"no answer at all is a failure":                       {nil, nil, []error{errors.New("pilot 2 is silent")}, factory.ExitError, ""},
		"no proxies are said on the side of the talk":         {nil, nil, nil, factory.ExitOK, "No proxies are connected.\n"},
	} {
		t.Run(name, func(t *testing.T) {
			streams, _, _, stderr := genericiooptions.NewTestIOStreams()
			f := factory.New(streams, func(string) string { return "" })
			*f.Config.APIServer = "https://127.0.0.1:1"
			*f.Config.Namespace = "default"
			o := &options{output: "table", now: now, fetch: func(context.Context, *kube.Client, string) ([]proxystatus.Proxy, []error) { return tc.fetched, tc.errs }}
			err := o.run(t.Context(), f, tc.args)
			if got := factory.Code(err); got != tc.code {
				t.Errorf("exit code %d (%v), want %d", got, err, tc.code)
			}
			if stderr.String() != tc.stderr {
				t.Errorf("stderr %q, want %q", stderr, tc.stderr)
			}
		})
	}
}

// pilot serves handler with a certificate for name and returns a dialer to it and the roots that trust it.
func pilot(t *testing.T, name string, handler http.HandlerFunc) (dialer, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}, roots
}

func TestAsk(t *testing.T) {
	const name = "istio-pilot.istio-system.svc"
	answer := func(body string, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/debug/proxies" {
				status = http.StatusNotFound
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	t.Run("an answer is read, and names its pilot where the pilot did not", func(t *testing.T) {
		dial, roots := pilot(t, name, answer(`{"proxies":[{"name":"a","namespace":"b"}]}`, http.StatusOK))
		list, err := ask(t.Context(), dial, "istio-system", "istio-pilot-1", roots)
		if err != nil || len(list.Proxies) != 1 || list.Proxies[0].Pilot != "istio-pilot-1" {
			t.Fatalf("got %+v, %v", list, err)
		}
	})
	for title, tc := range map[string]struct {
		name, body string
		status     int
		foreign    bool
		want       string
	}{
		"who has a certificate of another name is not believed": {"someone.else.svc", "{}", http.StatusOK, false, "not " + name},
		"who has a certificate of another root is not believed": {name, "{}", http.StatusOK, true, "unknown authority"},
		"an answer that is no success is told":                  {name, "", http.StatusServiceUnavailable, false, "it answered 503"},
		"an answer that is no JSON is told":                     {name, "<html>", http.StatusOK, false, "reading its answer"},
	} {
		t.Run(title, func(t *testing.T) {
			dial, roots := pilot(t, tc.name, answer(tc.body, tc.status))
			if tc.foreign {
				roots = x509.NewCertPool()
			}
			if _, err := ask(t.Context(), dial, "istio-system", "istio-pilot-1", roots); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}
