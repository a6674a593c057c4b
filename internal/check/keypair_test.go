package check_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/meshctl/meshctl/internal/check"
)

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func selfSigned(t *testing.T, key crypto.Signer, names ...string) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func pkcs8(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func TestReadKeyPair(t *testing.T) {
	must := func(key crypto.Signer, err error) crypto.Signer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).(*ecdsa.PrivateKey)
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	long := must(rsa.GenerateKey(rand.Reader, 2048)).(*rsa.PrivateKey)
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	chain, key := selfSigned(t, ec, "shop.example", "*.wild.example"), pkcs8(t, ec)
	for name, c := range map[string]struct {
		kind      corev1.SecretType
		crt, key  string
		where, of string
	}{
		"a key of PKCS #8":                       {corev1.SecretTypeTLS, chain, key, "", ""},
		"a key of SEC 1 behind its parameters":   {corev1.SecretTypeTLS, chain, block("EC PARAMETERS", []byte{6, 8}) + block("EC PRIVATE KEY", sec1), "", ""},
		"a key of PKCS #1":                       {corev1.SecretTypeTLS, selfSigned(t, long), block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(long)), "", ""},
		"words around a chain":                   {corev1.SecretTypeTLS, "subject\n" + chain + "issuer\n" + selfSigned(t, other), key, "", ""},
		"another type":                           {corev1.SecretTypeOpaque, chain, key, "", "type"},
		"no certificate":                         {corev1.SecretTypeTLS, "", key, "tls.crt", "missing"},
		"no key":                                 {corev1.SecretTypeTLS, chain, "", "tls.key", "missing"},
		"text in place of a certificate":         {corev1.SecretTypeTLS, "x", key, "tls.crt", "no certificate"},
		"text in place of a key":                 {corev1.SecretTypeTLS, chain, "x", "tls.key", "no private key"},
		"a key in place of a certificate":        {corev1.SecretTypeTLS, key, key, "tls.crt", "no certificate"},
		"a certificate in place of a key":        {corev1.SecretTypeTLS, chain, chain, "tls.key", "no private key"},
		"a damaged certificate in the chain":     {corev1.SecretTypeTLS, chain + block("CERTIFICATE", []byte("x")), key, "tls.crt", "certificate 2"},
		"a damaged key":                          {corev1.SecretTypeTLS, chain, block("PRIVATE KEY", []byte("x")), "tls.key", "cannot be read"},
		"an encrypted key":                       {corev1.SecretTypeTLS, chain, block("ENCRYPTED PRIVATE KEY", []byte("x")), "tls.key", "encrypted"},
		"another's key":                          {corev1.SecretTypeTLS, chain, pkcs8(t, other), "tls.key", "first certificate"},
		"another kind of key":                    {corev1.SecretTypeTLS, chain, pkcs8(t, long), "tls.key", "first certificate"},
		"the issuer before the server":           {corev1.SecretTypeTLS, selfSigned(t, other) + chain, key, "tls.key", "first certificate"},
		"a curve that proxies do not take":       {corev1.SecretTypeTLS, selfSigned(t, p224), pkcs8(t, p224), "tls.crt", "P-224"},
		"a kind of key that proxies do not take": {corev1.SecretTypeTLS, selfSigned(t, ed), pkcs8(t, ed), "tls.crt", "Ed25519"},
	} {
		pair, fault := check.ReadKeyPair(&corev1.Secret{Type: c.kind, Data: map[string][]byte{"tls.crt": []byte(c.crt), "tls.key": []byte(c.key)}})
		switch {
		case c.of == "" && fault != nil:
			t.Errorf("%s: %+v", name, fault)
		case c.of == "" && (pair == nil || strings.Contains(string(pair.Key), "PARAMETERS") || strings.Contains(string(pair.Chain), "subject")):
			t.Errorf("%s: %+v", name, pair)
		case c.of != "" && (fault == nil || fault.Key != c.where || !strings.Contains(fault.Message, c.of) || fault.Hint == ""):
			t.Errorf("%s: %+v", name, fault)
		}
	}
	pair, fault := check.ReadKeyPair(&corev1.Secret{Type: corev1.SecretTypeTLS, StringData: map[string]string{"tls.crt": chain, "tls.key": key}})
	if fault != nil {
		t.Fatal(fault)
	}
	for host, want := range map[string]bool{"shop.example": true, "a.wild.example": true, "*.wild.example": true, "wild.example": false, "*.example": false, "b.a.wild.example": false} {
		if pair.Covers(host) != want {
			t.Errorf("covers %s: %t", host, !want)
		}
	}
}
