package proxystatus

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/meshctl/meshctl/internal/proxystatus"
)

// maxMissing bounds how many proxies are named in one line.
const maxMissing = 10

// Missing says which of the connected proxies have not answered all that they are meant to have: "5 of 6 proxies have everything; waiting for
// default/reviews-v1-5d8c9f (RDS for 12s)". It is empty when no proxy is behind.
func Missing(proxies []proxystatus.Proxy, now time.Time) string {
	var behind []string
	for _, p := range proxies {
		if !p.Behind {
			continue
		}
		var types []string
		for _, t := range typesOf(p) {
			if s := p.Types[t]; s.State == proxystatus.Stale {
				types = append(types, strings.ToUpper(t)+" for "+duration.HumanDuration(now.Sub(s.Since)))
			}
		}
		behind = append(behind, fmt.Sprintf("%s/%s (%s)", p.Namespace, p.Name, cmp.Or(strings.Join(types, ", "), "not everything was sent yet")))
	}
	if len(behind) == 0 {
		return ""
	}
	names := behind
	rest := ""
	if len(names) > maxMissing {
		names, rest = names[:maxMissing], fmt.Sprintf(" and %d more", len(behind)-maxMissing)
	}
	return fmt.Sprintf("%d of %d proxies have everything; waiting for %s%s", len(proxies)-len(behind), len(proxies), strings.Join(names, ", "), rest)
}
