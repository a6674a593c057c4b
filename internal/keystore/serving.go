package keystore

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// Serving is a server's certificate, renewed by the handshakes that use it: no restart, and no clock to forget.
type Serving struct {
	authority *Authority
	names     []string
	addresses []net.IP
	lifetime  time.Duration

	mu      sync.Mutex
	current *tls.Certificate
}

// NewServing issues the first certificate at once, so that a root that cannot sign is noticed at start.
func NewServing(a *Authority, names []string, addresses []net.IP, lifetime time.Duration) (*Serving, error) {
	s := &Serving{authority: a, names: names, addresses: addresses, lifetime: lifetime}
	_, err := s.GetCertificate(nil)
	return s, err
}

// GetCertificate is for tls.Config: the current certificate, or a new one when less than a third of its life is left.
func (s *Serving) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.authority.now()
	if s.current != nil && s.current.Leaf.NotAfter.Sub(now) > s.lifetime/3 {
		return s.current, nil
	}
	fresh, err := s.authority.Issue(s.names, s.addresses, s.lifetime)
	if err != nil {
		if s.current != nil && now.Before(s.current.Leaf.NotAfter) {
			return s.current, nil // still good; the next handshake tries again
		}
		return nil, err
	}
	s.current = fresh
	return fresh, nil
}

// TLSConfig is a server's, TLS 1.3 only.
func (s *Serving) TLSConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.GetCertificate}
}
