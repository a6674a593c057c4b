package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/meshctl/meshctl/internal/model"
)

// SecretType is that of the certificates with their keys. They are sent to ingress gateways alone.
const SecretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// secretName is what listeners ask for a certificate by.
func secretName(c *model.Certificate) string { return "kubernetes://" + certificateKey(c) }

// certificateKey tells certificates apart.
func certificateKey(c *model.Certificate) string { return c.Ref.Namespace + "/" + c.Ref.Name }

// secret is a certificate with its key. It is the only place where a key is read.
func secret(c *model.Certificate) *Resource {
	bytes := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	name := secretName(c)
	return newResource(name, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: bytes(c.Chain), PrivateKey: bytes(c.Key)},
	}}, c.Ref)
}
