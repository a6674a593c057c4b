package proxystate

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"time"
)

// Secret is a certificate that the proxy has; what is secret about it is not in here.
type Secret struct {
	Resource
	// Type is certificate, authorities, or other.
	Type string
	// Valid says whether now is within the certificate's life; both ends and Serial are zero where there is none to read.
	From, Until time.Time
	Serial      string
	// Names the certificate is for.
	Names []string
}

// Secrets of the dump, by name.
func (d *Dump) Secrets() []Secret {
	var out []Secret
	for _, r := range d.Resources[Secrets] {
		s := Secret{Resource: r, Type: "other"}
		var data any
		switch {
		case has(r.Body, "tls_certificate"):
			s.Type, data = "certificate", at(r.Body, "tls_certificate", "certificate_chain")
		case has(r.Body, "validation_context"):
			s.Type, data = "authorities", at(r.Body, "validation_context", "trusted_ca")
		}
		if cert := certificate(data); cert != nil {
			s.From, s.Until, s.Serial = cert.NotBefore, cert.NotAfter, cert.SerialNumber.Text(16)
			s.Names = append(s.Names, cert.DNSNames...)
			for _, u := range cert.URIs {
				s.Names = append(s.Names, u.String())
			}
			for _, ip := range cert.IPAddresses {
				s.Names = append(s.Names, ip.String())
			}
		}
		out = append(out, s)
	}
	return out
}

// certificate is the first of a chain; nil when there is none that can be read.
func certificate(source any) *x509.Certificate {
	data := []byte(text(source, "inline_string"))
	if b := text(source, "inline_bytes"); b != "" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(b); err != nil {
			return nil
		}
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert
}
