package xds

import (
	"slices"
	"strings"
	"time"

	"github.com/meshctl/meshctl/internal/resource"
)

// reject records that the proxy refused resp, finds out which of its resources were meant, and reports them.
func (st *stream) reject(sub *subscription, resp response, text string, at time.Time) {
	k := sub.kind
	st.server.stats.rejections[k].Add(1)
	bad := culprits(k, text, resp.resources)
	if len(bad) == 0 && len(resp.resources) > 1 && (st.delta || !k.full()) {
		// The text names none, and good resources beside the bad one may have been dropped.
		st.server.cfg.Log.Warn("proxy rejected a response without naming the resource, sending it in halves",
			"proxy", st.name(), "type", k.String(), "resources", len(resp.resources), "text", text)
		st.halve(sub, resp)
		return
	}
	if len(bad) == 0 {
		bad = []*resource.Resource{nil}
	}
	st.mu.Lock()
	if sub.refused == nil {
		sub.refused = map[string]Rejection{}
	}
	var reported []Rejection
	for _, r := range bad {
		rej := Rejection{Proxy: st.proxy, Type: k.String(), Text: text, At: at}
		if r != nil {
			rej.Resource, rej.Version, rej.Refs = r.Name, r.Version, r.Refs
		}
		sub.refused[rej.Resource] = rej
		reported = append(reported, rej)
	}
	st.mu.Unlock()
	for _, rej := range reported {
		st.server.cfg.Log.Warn("proxy rejected a resource", "proxy", st.name(), "type", rej.Type, "resource", rej.Resource, "version", rej.Version, "text", text)
		st.server.cfg.Rejected(rej)
	}
	st.repeat(sub, resp, bad)
}

// repeat sends what was in a refused response beside the culprits once more. Envoy has taken most of it already and takes it again at no cost, but only
// an acknowledgement says so: to this server, and to the relay in between, which counts and records what is acknowledged. Of virtual hosts it has
// taken nothing. A write error shows at the next read.
func (st *stream) repeat(sub *subscription, resp response, culprits []*resource.Resource) {
	if !st.delta || culprits[0] == nil {
		return // a complete state without the culprits would take the forms of them away that are in force
	}
	rest := st.stillMeant(sub, resp.resources)
	rest = slices.DeleteFunc(rest, func(r *resource.Resource) bool { return slices.Contains(culprits, r) })
	removed := st.stillGone(sub, resp.removed)
	if len(rest)+len(removed) == 0 {
		return
	}
	_ = st.write(sub, rest, removed)
	sub.need = sub.sent
}

// stillMeant are those that the proxy was sent last of their names.
func (st *stream) stillMeant(sub *subscription, resources []*resource.Resource) []*resource.Resource {
	var out []*resource.Resource
	for _, r := range resources {
		if sub.wants(r.Name) && (sub.version(r.Name) == r.Version || r.Version == "absent") {
			out = append(out, r)
		}
	}
	return out
}

// stillGone are the names taken away that were not given anew.
func (st *stream) stillGone(sub *subscription, removed []string) []string {
	var out []string
	for _, name := range removed {
		if sub.version(name) == "" {
			out = append(out, name)
		}
	}
	return out
}

// halve sends a refused response in two, of which one will be refused again until the culprit is alone. What it takes away goes first. A write error
// shows at the next read.
func (st *stream) halve(sub *subscription, resp response) {
	resources := st.stillMeant(sub, resp.resources)
	middle := len(resources) / 2
	if removed := st.stillGone(sub, resp.removed); len(removed) > 0 {
		_ = st.write(sub, nil, removed)
	}
	for _, half := range [][]*resource.Resource{resources[:middle], resources[middle:]} {
		if len(half) > 0 {
			_ = st.write(sub, half, nil)
		}
	}
	sub.need = sub.sent
}

// culprits are the resources a rejection's text is about. Clusters and listeners are named in it; a response of one resource needs no name.
func culprits(k kind, text string, resources []*resource.Resource) []*resource.Resource {
	if len(resources) == 1 {
		return resources
	}
	if k == routes || k == virtualHosts {
		return nil // the text names none, and short names such as port numbers occur in it by accident
	}
	var out []*resource.Resource
	for _, r := range resources {
		if mentions(text, r.Name) {
			out = append(out, r)
		}
	}
	return out
}

// mentions says whether name occurs in text on its own, not as part of a longer name.
func mentions(text, name string) bool {
	for from := 0; name != ""; {
		i := strings.Index(text[from:], name)
		if i < 0 {
			return false
		}
		start, end := from+i, from+i+len(name)
		if (start == 0 || !nameByte(text, start-1)) && (end == len(text) || !nameByte(text, end)) {
			return true
		}
		from = start + 1
	}
	return false
}

// nameByte says whether the byte at i can belong to a resource's name; a full stop or colon before a space ends one.
func nameByte(text string, i int) bool {
	c := text[i]
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '|', c == '/':
		return true
	case c == '.', c == ':':
		return i+1 < len(text) && text[i+1] != ' ' && text[i+1] != '\n'
	}
	return false
}

func (st *stream) rejections() []Rejection {
	st.mu.Lock()
	defer st.mu.Unlock()
	var out []Rejection
	for _, sub := range st.subs {
		for _, r := range sub.refused {
			out = append(out, r)
		}
	}
	return out
}

// prune forgets rejections of resources the proxy is no longer meant to have in that form.
func (st *stream) prune() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, sub := range st.subs {
		for name, rej := range sub.refused {
			if name == "" {
				continue
			}
			if r := sub.base.Get(name); r == nil || r.Version != rej.Version {
				delete(sub.refused, name)
			}
		}
	}
}
