package check

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// KeyPair is a server's certificate with its key, as a Secret of type kubernetes.io/tls holds them.
type KeyPair struct {
	// Chain and Key are PEM of nothing but certificates and the one key.
	Chain, Key []byte
	// Leaf is the server's own certificate.
	Leaf *x509.Certificate
}

// Unusable says what of a Secret keeps it from being used.
type Unusable struct {
	// Key is the key of the Secret that is meant; empty for the whole.
	Key           string
	Message, Hint string
}

// minRSA is the shortest RSA key, in bits, that proxies take.
const minRSA = 2048

// ReadKeyPair judges a Secret as the certificate of a server. What it says never quotes the Secret's content.
func ReadKeyPair(secret *corev1.Secret) (*KeyPair, *Unusable) {
	if secret.Type != corev1.SecretTypeTLS {
		return nil, &Unusable{Message: fmt.Sprintf("it is of type %q", secret.Type), Hint: "make it with kubectl create secret tls: its type must be " + string(corev1.SecretTypeTLS)}
	}
	out := &KeyPair{}
	public, fault := out.readChain(value(secret, corev1.TLSCertKey))
	if fault != nil {
		return nil, fault
	}
	private, fault := out.readKey(value(secret, corev1.TLSPrivateKeyKey))
	if fault != nil {
		return nil, fault
	}
	type equal interface{ Equal(crypto.PublicKey) bool }
	if p, ok := private.Public().(equal); !ok || !p.Equal(public) {
		return nil, &Unusable{Key: corev1.TLSPrivateKeyKey, Message: "the key is not that of the first certificate in " + corev1.TLSCertKey, Hint: "put the server's own certificate first, and the key it was requested with"}
	}
	return out, nil
}

// value is what the Secret has under key; one from a file may have it as text.
func value(secret *corev1.Secret, key string) []byte {
	if text, ok := secret.StringData[key]; ok {
		return []byte(text)
	}
	return secret.Data[key]
}

func (k *KeyPair) readChain(text []byte) (crypto.PublicKey, *Unusable) {
	bad := func(message, hint string) (crypto.PublicKey, *Unusable) {
		return nil, &Unusable{Key: corev1.TLSCertKey, Message: message, Hint: hint}
	}
	if len(text) == 0 {
		return bad("it is missing or empty", "it holds the certificates in PEM, the server's own first")
	}
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		n++
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return bad(fmt.Sprintf("certificate %d cannot be read", n), "it holds the certificates in PEM, the server's own first")
		}
		if k.Leaf == nil {
			k.Leaf = cert
		}
		k.Chain = append(k.Chain, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if n == 0 {
		return bad("it holds no certificate in PEM", "a certificate begins with -----BEGIN CERTIFICATE-----")
	}
	switch public := k.Leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSA {
			return bad(fmt.Sprintf("its key has %d bits, and proxies take RSA keys from %d bits", bits, minRSA), "request a certificate for a longer key")
		}
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P224() {
			return bad("its key is on curve P-224, which proxies do not take", "request a certificate for a key on P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		return bad("its key is of kind Ed25519, which proxies do not take", "request a certificate for an RSA or ECDSA key")
	default:
		return bad("its key is of a kind that proxies do not take", "request a certificate for an RSA or ECDSA key")
	}
	return k.Leaf.PublicKey, nil
}

func (k *KeyPair) readKey(text []byte) (crypto.Signer, *Unusable) {
	bad := func(message, hint string) (crypto.Signer, *Unusable) {
		return nil, &Unusable{Key: corev1.TLSPrivateKeyKey, Message: message, Hint: hint}
	}
	if len(text) == 0 {
		return bad("it is missing or empty", "it holds the certificate's private key in PEM")
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return bad("the key is encrypted", "store it without a passphrase")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		key := parseKey(block.Bytes)
		if key == nil {
			return bad("the key cannot be read", "it is a PKCS #8, PKCS #1 or SEC 1 key of RSA or ECDSA in PEM")
		}
		k.Key = pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
		return key, nil
	}
	return bad("it holds no private key in PEM", "a key begins with -----BEGIN PRIVATE KEY-----")
}

// parseKey is nil when der is no key that can sign.
func parseKey(der []byte) crypto.Signer {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, _ := key.(crypto.Signer)
		return signer
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	return nil
}

// Covers says whether the certificate is for the host, which may be a wildcard.
func (k *KeyPair) Covers(host string) bool {
	if suffix, wildcard := strings.CutPrefix(host, "*."); wildcard {
		host = "any-label." + suffix
	}
	return k.Leaf.VerifyHostname(host) == nil
}
