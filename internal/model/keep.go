package model

import "reflect"

// Keep puts the objects of old in place of those of m that are equal to them, and a list of old in place of one that holds the same, so that whoever
// follows a mesh sees by identity what did not change. It is to be called before m is used.
func (m *Mesh) Keep(old *Mesh) {
	m.Services = keep(m.Services, old.Services, func(s *Service) any { return s.Hostname })
	m.Endpoints = keep(m.Endpoints, old.Endpoints, func(e *Endpoints) any { return e.Hostname })
	m.Workloads = keep(m.Workloads, old.Workloads, func(w *Workload) any { return w.Key })
	m.Rules = keep(m.Rules, old.Rules, func(r *Rule) any { return r.Ref })
	m.Policies = keep(m.Policies, old.Policies, func(p *Policy) any { return p.Ref })
	m.Externals = keep(m.Externals, old.Externals, func(e *External) any { return e.Ref })
	m.Ingress = keep(m.Ingress, old.Ingress, func(r *IngressRoute) any {
		return [...]any{r.Ref, r.Host, r.Path, r.PathKind, r.PathElements, r.Default}
	})
	m.IngressTLS = keep(m.IngressTLS, old.IngressTLS, func(t *IngressTLS) any { return t.Host })
}

func keep[T any](list, old []*T, key func(*T) any) []*T {
	// Most lists are the old one but for an object or two, so that the same is at the same place from one of the ends.
	same := len(list) == len(old)
	var byKey map[any]*T
	for i, o := range list {
		for _, at := range []int{i, len(old) - len(list) + i} {
			if at >= 0 && at < len(old) && list[i] != old[at] && key(o) == key(old[at]) && reflect.DeepEqual(o, old[at]) {
				list[i] = old[at]
			}
		}
		if list[i] == o {
			if byKey == nil {
				byKey = make(map[any]*T, len(old))
				for _, was := range old {
					byKey[key(was)] = was
				}
			}
			if was := byKey[key(o)]; was != nil && reflect.DeepEqual(o, was) {
				list[i] = was
			}
		}
		same = same && list[i] == old[i]
	}
	if same {
		return old
	}
	return list
}
