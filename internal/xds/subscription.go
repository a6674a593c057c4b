package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshctl/meshctl/internal/resource"
)

// subscription is what one stream asked for of one type, and what the proxy holds of it.
type subscription struct {
	kind     kind
	asked    bool
	wildcard bool
	// names subscribed to; for virtual hosts also those of whole route configurations.
	names map[string]struct{}

	// base is what the proxy holds (of the names it subscribes to), but for the exceptions in held.
	base resource.Group
	// held lists names the proxy has in another version than base: what it brought from an earlier stream, what it was given ahead of
	// the rest, and what is gone from base but not yet taken away.
	held map[string]holding
	// answer is owed to a first request even when there is nothing to say.
	answer bool
	// waiting are names asked for before anything was published.
	waiting []string
	// resume is the version a state-of-the-world proxy brought from an earlier stream.
	resume string

	sent, answered uint64 // sequence numbers of responses
	outstanding    []response
	// need is the sequence that must be answered before the rollout's step is over.
	need uint64

	// refused are the rejections in force, by resource name.
	refused map[string]Rejection
	since   time.Time
}

type holding struct {
	version string
	res     *resource.Resource // nil for what was brought along
}

type response struct {
	nonce     string
	seq       uint64
	resources []*resource.Resource
	removed   []string
}

// version the proxy holds of name; empty for none.
func (s *subscription) version(name string) string {
	if h, ok := s.held[name]; ok {
		return h.version
	}
	if r := s.base.Get(name); r != nil {
		return r.Version
	}
	return ""
}

func (s *subscription) wants(name string) bool {
	if s.wildcard {
		return true
	}
	if _, ok := s.names[name]; ok {
		return true
	}
	table, ok := s.kind.table(name)
	if ok {
		_, ok = s.names[table]
	}
	return ok
}

// has says whether the proxy was meant to have anything of a name it subscribes to.
func (s *subscription) has(name string) bool {
	if s.base.Get(name) != nil {
		return true
	}
	if s.kind == virtualHosts {
		for r := range s.base.All() {
			if table, _ := s.kind.table(r.Name); table == name {
				return true
			}
		}
	}
	return false
}

func (s *subscription) hold(name string, h holding) {
	if s.held == nil {
		s.held = map[string]holding{}
	}
	s.held[name] = h
}

// add brings the subscription to target but takes nothing away, and returns what to send.
func (s *subscription) add(target resource.Group) []*resource.Resource {
	changed, removed := target.Since(s.base)
	var out []*resource.Resource
	if s.wildcard && len(s.held) == 0 {
		out = changed
	} else {
		for _, r := range changed {
			if s.wants(r.Name) && s.version(r.Name) != r.Version {
				out = append(out, r)
			}
		}
	}
	was := len(s.held)
	for _, r := range removed {
		if _, ok := s.held[r.Name]; !ok && s.wants(r.Name) {
			s.hold(r.Name, holding{r.Version, r})
		}
	}
	if was > 0 {
		inChanged := make(map[string]struct{}, len(changed))
		for _, r := range changed {
			inChanged[r.Name] = struct{}{}
		}
		for name, h := range s.held {
			r := target.Get(name)
			if r == nil {
				continue // stays until remove
			}
			if _, seen := inChanged[name]; !seen && h.version != r.Version && s.wants(name) {
				out = append(out, r)
			}
			delete(s.held, name)
		}
	}
	s.base = target
	return out
}

// remove returns what the proxy holds and neither base nor keep has, and forgets it.
func (s *subscription) remove(keep resource.Group) []string {
	if len(s.held) == 0 {
		return nil
	}
	var out []string
	for name := range s.held {
		if s.base.Get(name) == nil && keep.Get(name) == nil {
			if s.wants(name) {
				out = append(out, name)
			}
			delete(s.held, name)
		}
	}
	slices.Sort(out)
	return out
}

// askTables answers names newly subscribed to of which some are route configurations: with all virtual hosts of each, as base has them or else target.
func (s *subscription) askTables(names []string, target resource.Group) (found []*resource.Resource, absent []string) {
	fresh := make(map[string]bool, len(names)) // to whether there is something of it
	for _, name := range names {
		fresh[name] = false
	}
	belongs := func(r *resource.Resource) (string, bool) {
		if _, ok := fresh[r.Name]; ok {
			return r.Name, true
		}
		table, _ := s.kind.table(r.Name)
		_, ok := fresh[table]
		return table, ok
	}
	for r := range s.base.All() {
		if name, ok := belongs(r); ok {
			fresh[name] = true
			found = append(found, r)
			delete(s.held, r.Name)
		}
	}
	inBase := maps.Clone(fresh)
	for r := range target.All() {
		if name, ok := belongs(r); ok && !inBase[name] {
			fresh[name] = true
			found = append(found, r)
			s.hold(r.Name, holding{r.Version, r})
		}
	}
	for _, name := range names {
		if !fresh[name] {
			absent = append(absent, name)
		}
	}
	return found, absent
}

// ask answers names newly subscribed to: each with its resource, from the first of the groups that has it, or as one that does not exist.
func (s *subscription) ask(names []string, targets ...resource.Group) (found []*resource.Resource, absent []string) {
	if s.kind == virtualHosts {
		return s.askTables(names, targets[0])
	}
	for _, name := range names {
		// Between two steps of a rollout the old form is the one that what is already there fits.
		r := s.base.Get(name)
		for _, g := range targets {
			if r == nil {
				r = g.Get(name)
			}
		}
		if r == nil {
			absent = append(absent, name)
			delete(s.held, name)
			continue
		}
		found = append(found, r)
		if base := s.base.Get(name); base == nil || base.Version != r.Version {
			s.hold(name, holding{r.Version, r})
		} else {
			delete(s.held, name)
		}
	}
	return found, absent
}

// state is everything held, for responses that must be complete.
func (s *subscription) state() []*resource.Resource {
	var out []*resource.Resource
	if s.wildcard {
		out = slices.AppendSeq(out, s.base.All())
		for name, h := range s.held {
			if h.res != nil && s.base.Get(name) == nil {
				out = append(out, h.res)
			}
		}
	} else {
		for name := range s.names {
			if h, ok := s.held[name]; ok && h.res != nil {
				out = append(out, h.res)
			} else if r := s.base.Get(name); r != nil {
				out = append(out, r)
			}
		}
	}
	slices.SortFunc(out, func(a, b *resource.Resource) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// digest is the version of a complete state.
func digest(resources []*resource.Resource) string {
	h := sha256.New()
	for _, r := range resources {
		// Lengths need no separator: a name cannot contain a line feed and versions have none.
		_, _ = io.WriteString(h, r.Name+"\n"+r.Version+"\n")
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// count of resources the proxy was given.
func (s *subscription) count() int {
	if !s.asked {
		return 0
	}
	if s.wildcard {
		n := s.base.Len()
		for name := range s.held {
			if s.base.Get(name) == nil {
				n++
			}
		}
		return n
	}
	n := 0
	if s.kind == virtualHosts {
		for r := range s.base.All() {
			if s.wants(r.Name) {
				n++
			}
		}
		return n
	}
	for name := range s.names {
		if s.version(name) != "" {
			n++
		}
	}
	return n
}

// emptyEndpoints is the answer for an endpoint set that does not exist: without one, the proxy would hold up all its clusters.
func emptyEndpoints(name string) (*resource.Resource, error) {
	body, err := proto.Marshal(&endpointv3.ClusterLoadAssignment{ClusterName: name})
	if err != nil {
		return nil, err
	}
	return resource.NewVersion(endpoints.url(), name, "absent", body), nil
}
