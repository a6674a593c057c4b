package sandbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// validity is longer than any sandbox lives; one that is older is brought up anew.
const validity = 365 * 24 * time.Hour

// Authority is the cluster's own certificate authority. It writes what it issues into one directory, as NAME.crt and NAME.key.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes a certificate authority and writes ca.crt and ca.key into dir.
func NewAuthority(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &Authority{dir: dir}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "meshbox"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	var err error
	a.cert, a.key, err = a.write("ca", template)
	return a, err
}

// CertFile is where the authority's own certificate is.
func (a *Authority) CertFile() string { return filepath.Join(a.dir, "ca.crt") }

// Identity is whom a certificate speaks for: a server by its names and addresses, a client by its user and groups, or both.
type Identity struct {
	User   string
	Groups []string
	Names  []string
	IPs    []string
}

// Issue writes a certificate and key for id as NAME.crt and NAME.key.
func (a *Authority) Issue(name string, id Identity) error {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: id.User, Organization: id.Groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:    id.Names,
	}
	for _, ip := range id.IPs {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	if len(id.Names)+len(id.IPs) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	_, _, err := a.write(name, template)
	return err
}

// SigningKey writes a bare key pair as NAME.key and NAME.pub; service-account tokens are signed with one.
func (a *Authority) SigningKey(name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making key %s: %w", name, err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encoding key %s: %w", name, err)
	}
	if err := a.writeKey(name, key); err != nil {
		return err
	}
	return writePEM(filepath.Join(a.dir, name+".pub"), "PUBLIC KEY", pub)
}

// Kubeconfig writes a kubeconfig at path that reaches server with the certificate issued as name.
func (a *Authority) Kubeconfig(path, server, name, namespace string) error {
	config := clientcmdapi.NewConfig()
	cluster := clientcmdapi.NewCluster()
	cluster.Server = server
	user := clientcmdapi.NewAuthInfo()
	for file, field := range map[string]*[]byte{
		"ca.crt":      &cluster.CertificateAuthorityData,
		name + ".crt": &user.ClientCertificateData,
		name + ".key": &user.ClientKeyData,
	} {
		data, err := os.ReadFile(filepath.Join(a.dir, file))
		if err != nil {
			return fmt.Errorf("writing kubeconfig %s: %w", path, err)
		}
		*field = data
	}
	context := clientcmdapi.NewContext()
	context.Cluster, context.AuthInfo, context.Namespace = "meshbox", name, namespace
	config.Clusters["meshbox"] = cluster
	config.AuthInfos[name] = user
	config.Contexts["meshbox"] = context
	config.CurrentContext = "meshbox"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("writing kubeconfig %s: %w", path, err)
	}
	return nil
}

func (a *Authority) write(name string, template *x509.Certificate) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making key %s: %w", name, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("numbering certificate %s: %w", name, err)
	}
	now := time.Now()
	template.SerialNumber = serial
	// Clocks of a virtual machine that was just resumed may step back a little.
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(validity)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, crypto.Signer(key)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("signing certificate %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("reading back certificate %s: %w", name, err)
	}
	if err := writePEM(filepath.Join(a.dir, name+".crt"), "CERTIFICATE", der); err != nil {
		return nil, nil, err
	}
	return cert, key, a.writeKey(name, key)
}

func (a *Authority) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding key %s: %w", name, err)
	}
	return writePEM(filepath.Join(a.dir, name+".key"), "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
