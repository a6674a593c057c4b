package ingest

import (
	"fmt"
	"time"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
)

// Expired tells of the certificates of Ingresses that are not valid at the moment now. They are served all the same: whether to trust them is for
// clients to say.
func Expired(mesh *model.Mesh, now time.Time) []finding.Finding {
	type claim struct{ ingress, secret model.Ref }
	said := map[claim]bool{}
	var out []finding.Finding
	for _, t := range mesh.IngressTLS {
		c := t.Certificate
		if c == nil || said[claim{t.Ref, c.Ref}] {
			continue
		}
		said[claim{t.Ref, c.Ref}] = true
		var message string
		switch {
		case now.After(c.NotAfter):
			message = fmt.Sprintf("the certificate in Secret %s expired on %s, so clients will refuse it", c.Ref.Name, c.NotAfter.UTC().Format(time.RFC1123))
		case now.Before(c.NotBefore):
			message = fmt.Sprintf("the certificate in Secret %s is not valid before %s, so clients will refuse it", c.Ref.Name, c.NotBefore.UTC().Format(time.RFC1123))
		default:
			continue
		}
		out = append(out, finding.Finding{
			Code: finding.DoubtfulCertificate, Severity: finding.Warning, Field: "spec.tls", Message: message, Hint: "put a certificate that is valid into the Secret; gateways take it at once",
			Object: finding.Object{Kind: t.Ref.Kind, Namespace: t.Ref.Namespace, Name: t.Ref.Name},
		})
	}
	return out
}
