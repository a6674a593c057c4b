package relay

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// session is one stream of Envoy's. All its state belongs to the goroutine of run.
type session struct {
	relay  *Relay
	envoy  discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	cancel context.CancelFunc

	node  *corev3.Node
	types map[string]*subscription
	order []string // the URLs of types, as Envoy first asked for them

	// inflight are the responses Envoy has not answered, by the nonce it was given.
	inflight map[string]*response
	nonces   uint64

	// pilot is the stream that is up, or nil.
	pilot *upstream
	// alone is set when Pilot is known to be away; what is asked for then is answered from the record.
	alone bool
}

// subscription is what Envoy asked for of one type, and what it holds.
type subscription struct {
	url      string
	wildcard bool
	names    map[string]struct{}
	// versions of what Envoy accepted.
	versions map[string]string
	// answered is set once anything was sent to Envoy.
	answered bool
	// opened is the upstream that knows of this subscription.
	opened *upstream
}

// response is one sent to Envoy, of Pilot's or from the record.
type response struct {
	url       string
	from      *upstream // nil for the record
	nonce     string    // Pilot's
	resources []*discoveryv3.Resource
	removed   []string
}

func (s *session) run(ctx context.Context) error {
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	over := make(chan error, 1)
	go func() {
		for {
			m, err := s.envoy.Recv()
			if err != nil {
				over <- err
				return
			}
			select {
			case requests <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	events := make(chan event)
	go s.relay.connect(ctx, s, events)
	grace := time.NewTimer(s.relay.cfg.Grace)
	defer grace.Stop()

	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err = <-over:
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		case m := <-requests:
			err = s.asked(m)
		case e := <-events:
			err = s.heard(e)
		case <-grace.C:
			err = s.silence()
		}
		if err != nil {
			return err
		}
	}
}

// asked handles a message of Envoy's.
func (s *session) asked(m *discoveryv3.DeltaDiscoveryRequest) error {
	if s.node == nil {
		s.node = plain(m.GetNode())
	}
	sub := s.types[m.GetTypeUrl()]
	first := sub == nil
	if first {
		sub = &subscription{url: m.GetTypeUrl(), names: map[string]struct{}{}, versions: map[string]string{}}
		s.types[sub.url] = sub
		s.order = append(s.order, sub.url)
		if len(m.GetInitialResourceVersions()) > 0 {
			// Envoy lost its stream, not its configuration.
			maps.Copy(sub.versions, m.GetInitialResourceVersions())
			s.relay.update(s, func(st *Status) { st.Accepted[sub.url] = true })
		}
		sub.wildcard = len(m.GetResourceNamesSubscribe()) == 0
	}
	answer := s.answered(sub, m)
	for _, name := range m.GetResourceNamesUnsubscribe() {
		if name == "*" {
			sub.wildcard = false
			continue
		}
		delete(sub.names, name)
		if !sub.wildcard {
			drop(sub.url, sub.versions, name)
			s.relay.record.forget(sub.url, name)
		}
	}
	for _, name := range m.GetResourceNamesSubscribe() {
		if name == "*" {
			sub.wildcard = true
		} else {
			sub.names[name] = struct{}{}
		}
	}

	if s.alone && (first || len(m.GetResourceNamesSubscribe()) > 0) {
		if err := s.fromRecord(sub, m.GetResourceNamesSubscribe()); err != nil {
			return err
		}
	}
	if s.pilot == nil {
		return nil
	}
	if sub.opened != s.pilot {
		s.open(sub)
		return nil
	}
	on := &discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: sub.url, ResourceNamesSubscribe: m.GetResourceNamesSubscribe(), ResourceNamesUnsubscribe: m.GetResourceNamesUnsubscribe(),
	}
	if answer != nil && answer.from == s.pilot {
		on.ResponseNonce, on.ErrorDetail = answer.nonce, m.GetErrorDetail()
	}
	if on.ResponseNonce != "" || len(on.ResourceNamesSubscribe)+len(on.ResourceNamesUnsubscribe) > 0 {
		s.send(on)
	}
	return nil
}

// answered takes notice of Envoy's yes or no to a response, and returns that response.
func (s *session) answered(sub *subscription, m *discoveryv3.DeltaDiscoveryRequest) *response {
	r := s.inflight[m.GetResponseNonce()]
	if r == nil {
		return nil
	}
	delete(s.inflight, m.GetResponseNonce())
	if detail := m.GetErrorDetail(); detail != nil {
		s.relay.cfg.Log.Warn("Envoy refused a configuration", "type", sub.url, "fromRecord", r.from == nil, "reason", detail.GetMessage())
		s.relay.update(s, func(st *Status) { st.Nacks++ })
		if r.from != s.pilot && s.pilot != nil {
			// Pilot was told that Envoy holds this. It does not.
			s.pilot.end()
		}
		return r
	}
	for _, res := range r.resources {
		sub.versions[res.GetName()] = res.GetVersion()
	}
	for _, name := range r.removed {
		delete(sub.versions, name)
	}
	if r.from != nil {
		s.relay.record.accept(sub.url, r.resources, r.removed)
	}
	s.relay.update(s, func(st *Status) {
		st.Acks++
		st.Accepted[sub.url] = true
	})
	return r
}

// heard handles what happens on the way to Pilot.
func (s *session) heard(e event) error {
	switch {
	case e.up != nil:
		s.pilot = e.up
		for _, url := range s.order {
			s.open(s.types[url])
		}
		return nil
	case e.response != nil:
		sub := s.types[e.response.GetTypeUrl()]
		if sub == nil || e.from != s.pilot {
			return nil
		}
		s.alone = false
		s.relay.update(s, func(st *Status) { st.Pilot, st.LastError = true, "" })
		return s.answer(sub, &response{url: sub.url, from: e.from, nonce: e.response.GetNonce(), resources: e.response.GetResources(), removed: e.response.GetRemovedResources()},
			e.response)
	default:
		s.pilot = nil
		s.relay.update(s, func(st *Status) { st.Pilot, st.LastError = false, e.err.Error() })
		return s.goAlone()
	}
}

// silence is the end of the grace a connected Pilot has to say something.
func (s *session) silence() error {
	for _, sub := range s.types {
		if sub.answered || len(sub.versions) > 0 {
			return nil
		}
	}
	if s.relay.record.empty() {
		return nil
	}
	if s.pilot != nil {
		// Pilot must learn what Envoy is now given, so it is asked anew.
		s.pilot.end()
		s.pilot = nil
	}
	return s.goAlone()
}

// goAlone answers what is still open from the record.
func (s *session) goAlone() error {
	if s.alone {
		return nil
	}
	s.alone = true
	for _, url := range s.order {
		sub := s.types[url]
		if sub.wildcard {
			if !sub.answered && len(sub.versions) == 0 {
				if err := s.fromRecord(sub, nil); err != nil {
					return err
				}
			}
			continue
		}
		held := map[string]bool{}
		for name := range s.held(sub) {
			held[name], held[tableOf(sub.url, name)] = true, true
		}
		var open []string
		for name := range sub.names {
			if !held[name] {
				open = append(open, name)
			}
		}
		if err := s.fromRecord(sub, open); err != nil {
			return err
		}
	}
	return nil
}

// held is what Envoy holds of a type, or was sent and has not refused, in versions by name.
func (s *session) held(sub *subscription) map[string]string {
	held := maps.Clone(sub.versions)
	for _, nonce := range slices.SortedFunc(maps.Keys(s.inflight), byNumber) {
		r := s.inflight[nonce]
		if r.url != sub.url {
			continue
		}
		for _, res := range r.resources {
			held[res.GetName()] = res.GetVersion()
		}
		for _, name := range r.removed {
			delete(held, name)
		}
	}
	return held
}

// fromRecord answers with what is recorded of the names, or of the whole type; with nothing when there is nothing.
func (s *session) fromRecord(sub *subscription, names []string) error {
	resources, known := s.relay.record.find(sub.url, sub.wildcard, names)
	if !known || len(resources) == 0 && !sub.wildcard {
		return nil
	}
	s.relay.update(s, func(st *Status) { st.FromRecord++ })
	return s.answer(sub, &response{url: sub.url, resources: resources}, &discoveryv3.DeltaDiscoveryResponse{TypeUrl: sub.url, Resources: resources})
}

// answer sends m to Envoy under a nonce of the session's own: two Pilots may use the same.
func (s *session) answer(sub *subscription, r *response, m *discoveryv3.DeltaDiscoveryResponse) error {
	s.nonces++
	m.Nonce = strconv.FormatUint(s.nonces, 10)
	s.inflight[m.GetNonce()] = r
	sub.answered = true
	return s.envoy.Send(m)
}

// open tells Pilot of a subscription and of all that Envoy holds.
func (s *session) open(sub *subscription) {
	if !sub.wildcard && len(sub.names) == 0 {
		return // Envoy wants nothing of this type any more, and an empty first request would mean everything
	}
	m := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: sub.url, InitialResourceVersions: s.held(sub)}
	if sub.wildcard && len(sub.names) > 0 {
		m.ResourceNamesSubscribe = append(m.ResourceNamesSubscribe, "*")
	}
	m.ResourceNamesSubscribe = append(m.ResourceNamesSubscribe, slices.Sorted(maps.Keys(sub.names))...)
	sub.opened = s.pilot
	s.send(m)
}

// send gives Pilot a message; the first of a stream says who Envoy is. A broken stream is noticed where it is read.
func (s *session) send(m *discoveryv3.DeltaDiscoveryRequest) {
	if !s.pilot.introduced {
		m.Node, s.pilot.introduced = s.node, true
	}
	_ = s.pilot.stream.Send(m)
}

func byNumber(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }
