package proxystatus

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/proxystatus"
)

func TestMissingNamesTheProxiesThatAreBehind(t *testing.T) {
	all := proxies()
	if got := Missing(all, now()); got != "" {
		t.Errorf("nobody is behind, got %q", got)
	}
	all[0].Behind = true
	if got, want := Missing(all, now()), "1 of 2 proxies have everything; waiting for default/reviews-v1-abc (LDS for 12s)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for n := range 12 {
		all = append(all, proxystatus.Proxy{Name: fmt.Sprint("p", n), Namespace: "n", Connected: now().Add(-time.Second), Behind: true})
	}
	if got := Missing(all, now()); !strings.HasPrefix(got, "1 of 14 ") || !strings.HasSuffix(got, "n/p8 (not everything was sent yet) and 3 more") {
		t.Errorf("got %s", got)
	}
}
