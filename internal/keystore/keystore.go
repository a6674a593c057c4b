// Package keystore holds signing keys, current and next: the control plane's root, where it is kept, what is issued from it, and its publication.
//
// In: the Secret that keeps the root, made when absent. Out: an Authority that issues serving certificates, and the root certificate in a
// ConfigMap of every namespace. The root's key leaves this room only into that Secret.
package keystore

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Where the root is kept.
const (
	SecretName = "istio-ca-secret"
	CertKey    = "ca-cert.pem"
	KeyKey     = "ca-key.pem"
)

const (
	rootLifetime = 10 * 365 * 24 * time.Hour
	// skew is how far clocks may be apart.
	skew = 5 * time.Minute
)

// Secret is key material that prints as redacted wherever it turns up.
type Secret []byte

const redacted = "[redacted]"

// Format implements fmt.Formatter, for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

func (Secret) String() string { return redacted }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// ErrUnusable is returned when the root that is kept cannot be used, which waiting does not mend.
var ErrUnusable = errors.New("unusable root")

// Authority issues certificates from a root.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	root []byte
	now  func() time.Time
}

// RootPEM is the root certificate.
func (a *Authority) RootPEM() []byte { return a.root }

// NewAuthority makes a self-signed root and its two files.
func NewAuthority(now func() time.Time) (a *Authority, certPEM []byte, keyPEM Secret, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("generating the root's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, nil, err
	}
	start := now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Mesh root " + start.UTC().Format(time.DateOnly)},
		NotBefore: start.Add(-skew), NotAfter: start.Add(rootLifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("signing the root: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("encoding the root's key: %w", err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	a, err = ParseAuthority(certPEM, keyPEM, now)
	return a, certPEM, keyPEM, err
}

// ParseAuthority reads a root's two files.
func ParseAuthority(certPEM []byte, keyPEM Secret, now func() time.Time) (*Authority, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("reading %s: no certificate in it", CertKey)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", CertKey, err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", KeyKey, err)
	}
	switch t := now(); {
	case !key.PublicKey.Equal(cert.PublicKey):
		return nil, errors.New("the certificate is not that of the key")
	case !cert.IsCA:
		return nil, errors.New("the certificate is not that of an authority")
	case t.After(cert.NotAfter):
		return nil, fmt.Errorf("the certificate expired on %s", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return &Authority{cert: cert, key: key, root: pem.EncodeToMemory(block), now: now}, nil
}

func parseKey(keyPEM Secret) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("no key in it")
	}
	if block.Type == "EC PRIVATE KEY" {
		return x509.ParseECPrivateKey(block.Bytes)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return key, nil
}

// Load reads the root from its Secret in namespace, or makes it. Of several that make it at once one wins and all use what it made.
// A Secret that is there but unusable is an error: replacing a root is nobody's by-product.
func Load(ctx context.Context, client kubernetes.Interface, namespace string, now func() time.Time) (*Authority, error) {
	secrets := client.CoreV1().Secrets(namespace)
	found, err := secrets.Get(ctx, SecretName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		a, certPEM, keyPEM, err := NewAuthority(now)
		if err != nil {
			return nil, err
		}
		_, err = secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: SecretName, Namespace: namespace},
			Data:       map[string][]byte{CertKey: certPEM, KeyKey: keyPEM},
		}, metav1.CreateOptions{})
		switch {
		case err == nil:
			return a, nil
		case !apierrors.IsAlreadyExists(err):
			return nil, fmt.Errorf("creating Secret %s/%s: %w", namespace, SecretName, err)
		}
		found, err = secrets.Get(ctx, SecretName, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("reading Secret %s/%s: %w", namespace, SecretName, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("reading Secret %s/%s: %w", namespace, SecretName, err)
	}
	a, err := ParseAuthority(found.Data[CertKey], found.Data[KeyKey], now)
	if err != nil {
		return nil, fmt.Errorf("using Secret %s/%s: %w: %w; delete it to have a new root made", namespace, SecretName, ErrUnusable, err)
	}
	return a, nil
}

// Issue signs a serving certificate for the names and addresses, with a key of its own.
func (a *Authority) Issue(names []string, addresses []net.IP, lifetime time.Duration) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	start := a.now()
	end := start.Add(lifetime)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, IPAddresses: addresses,
		NotBefore: start.Add(-skew), NotAfter: end,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %s: %w", names[0], err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the certificate of %s: %w", names[0], err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	return n, nil
}
