package xds

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/proxystatus"
	"github.com/meshctl/meshctl/internal/resource"
)

// stream is one proxy's. Its goroutine owns everything but what mu guards, which others read.
type stream struct {
	server    *Server
	grpc      grpc.ServerStream
	delta     bool
	proxy     model.Proxy
	version   string
	connected time.Time

	wake  chan struct{}
	timer *time.Timer
	// cut ends the stream from outside; overdue does when a proxy does not read.
	cut     chan error
	overdue *time.Timer

	// A rollout takes the proxy from one publication to the next, step by step, each step when the one before was answered.
	plan     *publication
	snapshot *resource.Snapshot
	step     step
	deadline time.Time
	// Endpoints and secrets do not wait for rollouts: live is the newest publication. Those of the plan that live no longer has stay as long as
	// what names them does.
	live         *publication
	liveSnapshot *resource.Snapshot

	unknown map[string]bool
	// changed are the clusters sent before the stream first asked for endpoints.
	changed map[string]bool

	done atomic.Uint64 // generation answered in full

	mu   sync.Mutex
	subs [kinds]*subscription
}

// patience is how many times the wait for an acknowledgement a proxy may take to read. One that has stopped reading keeps its stream from all
// else; it comes back when it can.
const patience = 12

// step of a rollout. What is new travels with the references, what is gone against them, and only after everything new is in place.
// Names that a proxy subscribes to one by one (endpoints, routes) it drops itself with the cluster or listener that named them; what it still
// asks for then is taken away last.
type step int

const (
	addClusters step = iota
	addEndpoints
	addListeners
	addRoutes
	removeListeners
	removeClusters
	removeNamed
	settle
	idle
)

func newStream(s *Server, g grpc.ServerStream, proxy model.Proxy, node *corev3.Node, delta bool) *stream {
	st := &stream{
		server: s, grpc: g, delta: delta, proxy: proxy, version: envoyVersion(node), connected: time.Now(),
		wake: make(chan struct{}, 1), cut: make(chan error, 1), timer: time.NewTimer(time.Hour), step: idle, unknown: map[string]bool{},
		changed: map[string]bool{},
	}
	st.timer.Stop()
	st.overdue = time.AfterFunc(time.Hour, func() { st.end(status.Error(codes.DeadlineExceeded, "the proxy does not read what it is sent")) })
	st.overdue.Stop()
	for k := range kind(kinds) {
		st.subs[k] = &subscription{kind: k, names: map[string]struct{}{}, since: st.connected}
	}
	return st
}

func envoyVersion(n *corev3.Node) string {
	if v := n.GetUserAgentBuildVersion().GetVersion(); v != nil {
		return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	}
	return n.GetUserAgentVersion()
}

func (st *stream) name() string { return st.proxy.Workload.Namespace + "/" + st.proxy.Workload.Name }

func (st *stream) poke() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// run serves the stream from its first request until it ends.
func (st *stream) run(first *request, requests <-chan *request, ended <-chan error) (err error) {
	defer st.timer.Stop()
	defer st.server.survive(&err)
	ctx := st.grpc.Context()
	if err := st.take(first); err != nil {
		return err
	}
	for {
		if err := st.advance(); err != nil {
			return err
		}
		select {
		case r := <-requests:
			if err := st.take(r); err != nil {
				return err
			}
		case <-st.wake:
		case <-st.timer.C:
		case err := <-ended:
			return receiveError(err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end makes the stream end with err, unless it is about to already.
func (st *stream) end(err error) {
	select {
	case st.cut <- err:
	default:
	}
}

// put writes one response; a proxy that does not take it in time loses its stream.
func (st *stream) put(f *frame) error {
	st.overdue.Reset(patience * st.server.cfg.StepTimeout)
	defer st.overdue.Stop()
	return st.grpc.SendMsg(f)
}

// take processes one request.
func (st *stream) take(r *request) error {
	k, ok := kindOf(r.url)
	if !ok || k == virtualHosts && !st.delta {
		return st.decline(r)
	}
	st.follow()
	sub := st.subs[k]
	first := !sub.asked
	if r.nonce != "" {
		current := st.settleNonce(sub, r)
		if !st.delta && !current {
			return nil // overtaken by a response on its way; the proxy will answer that one with all its names
		}
	}
	if !st.delta {
		r.toDelta(sub)
	}

	var fresh []string
	brought := map[string]bool{}
	if k == virtualHosts {
		for name := range r.initial {
			if table, ok := k.table(name); ok {
				brought[table] = true
			}
		}
	}
	st.mu.Lock()
	if first {
		sub.asked = true
		sub.wildcard = len(r.subscribe) == 0
		sub.answer = len(r.initial) == 0
		sub.resume = r.version
		st.restart()
	}
	for _, name := range r.unsubscribe {
		if name == wildcardName {
			sub.wildcard = false
			sub.base, sub.held = nil, nil
			continue
		}
		delete(sub.names, name)
		if !sub.wildcard {
			delete(sub.held, name)
			if k == virtualHosts {
				maps.DeleteFunc(sub.held, func(host string, _ holding) bool { return !sub.wants(host) })
			}
		}
		delete(sub.refused, name)
	}
	for _, name := range r.subscribe {
		if name == wildcardName {
			if !sub.wildcard {
				sub.wildcard = true
				sub.base = nil // whatever was given by name is compared anew
				st.restart()
			}
			continue
		}
		name = st.intern(k, name)
		sub.names[name] = struct{}{}
		if k == endpoints && st.changed[name] {
			delete(r.initial, name) // whatever it has of an earlier stream, its cluster is another now
		}
		if _, had := r.initial[name]; !had && !brought[name] {
			fresh = append(fresh, name)
		}
	}
	for name, v := range r.initial { // the rollout compares these
		if sub.wants(name) {
			sub.hold(st.intern(k, name), holding{version: strings.Clone(v)})
		}
	}
	if k == endpoints && len(st.changed) > 0 {
		sub.resume = ""
		clear(st.changed)
	}
	tooMany := len(sub.names) > maxNames || len(sub.held) > maxNames
	st.mu.Unlock()
	if tooMany {
		return status.Errorf(codes.ResourceExhausted, "more than %d names of type %s", maxNames, k)
	}
	if st.plan == nil {
		sub.waiting = append(sub.waiting, fresh...) // nothing was published yet
		return nil
	}
	if len(fresh) == 0 {
		return nil
	}
	return st.answerNames(sub, fresh)
}

// answerNames answers names just subscribed to at once: something waits for them.
func (st *stream) answerNames(sub *subscription, fresh []string) error {
	if !st.delta && sub.resume != "" && sub.resume == st.resumed(sub) {
		st.mu.Lock()
		sub.ask(fresh, st.target(sub.kind), group(st.snapshot, sub.kind))
		sub.answer = false
		st.mu.Unlock()
		return nil
	}
	st.mu.Lock()
	found, absent := sub.ask(fresh, st.target(sub.kind), group(st.snapshot, sub.kind))
	sub.answer = false
	st.mu.Unlock()
	if sub.kind == endpoints {
		for _, name := range absent {
			e, err := emptyEndpoints(name)
			if err != nil {
				return err
			}
			found = append(found, e)
		}
		absent = nil
	}
	if len(found) == 0 && len(absent) == 0 {
		return nil
	}
	return st.send(sub, found, absent)
}

// resumed is the version a state-of-the-world proxy would hold now, had it been given names.
func (st *stream) resumed(sub *subscription) string {
	probe := subscription{kind: sub.kind, names: sub.names, wildcard: sub.wildcard, base: st.target(sub.kind)}
	return digest(probe.state())
}

// intern keeps the source's copy of a name rather than one per stream.
func (st *stream) intern(k kind, name string) string {
	if r := st.target(k).Get(name); r != nil {
		return r.Name
	}
	return strings.Clone(name)
}

// settleNonce notes that the response with the request's nonce, and all before it, were answered. It says whether it was the latest.
func (st *stream) settleNonce(sub *subscription, r *request) bool {
	at := -1
	for i, o := range sub.outstanding {
		if o.nonce == r.nonce {
			at = i
		}
	}
	if at < 0 {
		return len(sub.outstanding) == 0 // the proxy's later words about a response it has answered
	}
	resp := sub.outstanding[at]
	latest := at == len(sub.outstanding)-1
	now := time.Now()

	st.mu.Lock()
	good := sub.outstanding[:at]
	if !r.rejected {
		good = sub.outstanding[:at+1]
	}
	for _, o := range good {
		if len(sub.refused) == 0 {
			break
		}
		for _, res := range o.resources {
			delete(sub.refused, res.Name)
		}
		for _, name := range o.removed {
			delete(sub.refused, name)
		}
	}
	sub.outstanding = append([]response(nil), sub.outstanding[at+1:]...)
	sub.answered = resp.seq
	sub.since = now
	if !r.rejected {
		delete(sub.refused, "") // whatever it was about, the type is accepted now
	}
	st.mu.Unlock()
	if r.rejected {
		st.reject(sub, resp, r.text, now)
	}
	st.server.cfg.Progress()
	return latest
}

// decline answers types that are not served, so that nobody waits for them.
func (st *stream) decline(r *request) error {
	if r.nonce != "" && len(r.subscribe) == 0 || !st.delta && st.unknown[r.url] {
		return nil
	}
	if len(st.unknown) > 32 {
		return status.Error(codes.InvalidArgument, "too many unknown resource types")
	}
	st.unknown[strings.Clone(r.url)] = true
	nonce := st.server.newNonce()
	if st.delta {
		return st.put(deltaFrame(r.url, nonce, nil, r.subscribe))
	}
	return st.put(sotwFrame(r.url, nonce, "0", nil))
}

// follow takes up the newest publication: endpoints at once, the rest when the rollout before it is over.
func (st *stream) follow() {
	newest := st.server.current.Load()
	if newest == nil {
		return
	}
	if newest != st.live {
		st.live = newest
		snap := newest.source.Snapshot(st.proxy)
		st.liveSnapshot = snap
		if st.step == idle || st.plan == nil {
			st.plan, st.snapshot, st.step = newest, snap, addClusters
		}
		return
	}
	if st.step == idle && st.plan != newest {
		st.plan, st.snapshot, st.step = newest, newest.source.Snapshot(st.proxy), addClusters
	}
}

// restart runs the rollout's steps again; those already taken have nothing to do.
func (st *stream) restart() {
	if st.plan != nil {
		st.step = addClusters
	}
}

// target is the group the stream should come to hold.
func (st *stream) target(k kind) resource.Group {
	if k.immediate() {
		return group(st.liveSnapshot, k)
	}
	return group(st.snapshot, k)
}

// advance takes every step that can be taken now.
func (st *stream) advance() error {
	for {
		st.follow()
		if st.plan == nil {
			return nil
		}
		// These never wait.
		if err := st.sendAdditions(secrets); err != nil {
			return err
		}
		if err := st.sendAdditions(endpoints); err != nil {
			return err
		}
		if st.step == idle {
			st.finish()
			return nil
		}
		if !st.ready() {
			now := time.Now()
			if st.deadline.IsZero() {
				st.deadline = now.Add(st.server.cfg.StepTimeout)
			}
			if wait := st.deadline.Sub(now); wait > 0 {
				st.timer.Reset(wait)
				return nil
			}
		}
		st.deadline = time.Time{}
		st.timer.Stop()
		if err := st.execute(); err != nil {
			return err
		}
		st.step++
		if st.step == idle {
			st.prune()
			st.finish()
			st.server.cfg.Progress()
		}
	}
}

// finish notes that the proxy is done with the plan, when it is: a rollout that went on without an answer is over and not done, until the answer comes.
func (st *stream) finish() {
	if st.done.Load() >= st.plan.generation || !st.answered(clusters, endpoints, listeners, routes, virtualHosts) || !st.routed() {
		return
	}
	st.done.Store(st.plan.generation)
	st.server.cfg.Progress()
}

// routed says whether the proxy has answered all that was sent of routes, also what it asked for by itself.
func (st *stream) routed() bool {
	return len(st.subs[routes].outstanding)+len(st.subs[virtualHosts].outstanding) == 0
}

// answered says whether the proxy has answered what the rollout's steps sent of the kinds.
func (st *stream) answered(ks ...kind) bool {
	for _, k := range ks {
		if sub := st.subs[k]; sub.asked && sub.answered < sub.need {
			return false
		}
	}
	return true
}

// ready says whether what the step builds on was answered.
func (st *stream) ready() bool {
	switch st.step {
	case addListeners:
		return st.answered(clusters, endpoints)
	case removeListeners:
		return st.answered(listeners, routes, virtualHosts)
	case removeClusters:
		return st.answered(listeners)
	case removeNamed:
		return st.answered(clusters)
	case settle:
		return st.answered(clusters, endpoints, listeners, routes, virtualHosts) && st.routed()
	}
	return true
}

func (st *stream) execute() error {
	switch st.step {
	case addClusters:
		return st.sendAdditions(clusters)
	case addEndpoints:
		st.subs[endpoints].need = st.subs[endpoints].sent
	case addListeners:
		return st.sendAdditions(listeners)
	case addRoutes:
		if err := st.sendAdditions(routes); err != nil {
			return err
		}
		return st.sendAdditions(virtualHosts)
	case removeListeners:
		return st.sendRemovals(listeners)
	case removeClusters:
		return st.sendRemovals(clusters)
	case removeNamed:
		if err := st.sendRemovals(routes); err != nil {
			return err
		}
		if err := st.sendRemovals(secrets); err != nil {
			return err
		}
		return st.sendRemovals(endpoints)
	}
	return nil
}

func (st *stream) sendAdditions(k kind) error {
	sub := st.subs[k]
	if !sub.asked {
		return nil
	}
	resuming := ""
	st.mu.Lock()
	if sub.answer && !st.delta {
		resuming = sub.resume
	}
	changed := sub.add(st.target(k))
	owed := sub.answer
	sub.answer, sub.resume = false, ""
	var absent []string
	for _, name := range sub.waiting {
		if _, still := sub.names[name]; still && !sub.has(name) {
			absent = append(absent, name)
		}
	}
	sub.waiting = nil
	if k == virtualHosts {
		// A domain may go from one to another, which is possible in one response alone.
		absent = append(absent, sub.remove(nil)...)
	}
	st.mu.Unlock()
	if k == endpoints {
		for _, name := range absent {
			e, err := emptyEndpoints(name)
			if err != nil {
				return err
			}
			changed = append(changed, e)
		}
		absent = nil
	}
	if len(changed) == 0 && len(absent) == 0 && (!owed || sub.sent > 0) {
		return nil
	}
	if resuming != "" && resuming == digest(sub.state()) {
		return nil // it still has all of it
	}
	err := st.send(sub, changed, absent)
	if !k.immediate() { // those sent after the rollout's own step do not hold it up
		sub.need = sub.sent
	}
	if k == clusters && err == nil {
		return st.sendAgain(changed)
	}
	return err
}

// sendAgain sends the endpoints of clusters that the proxy had in another form: it takes a changed cluster into use when it was sent them, and
// does not ask for what it has.
func (st *stream) sendAgain(changed []*resource.Resource) error {
	sub := st.subs[endpoints]
	if !sub.asked {
		for _, c := range changed {
			st.changed[c.Name] = true
		}
		return nil
	}
	var again []*resource.Resource
	for _, c := range changed {
		if _, asked := sub.names[c.Name]; !asked {
			continue
		}
		r := sub.base.Get(c.Name)
		if h, ok := sub.held[c.Name]; ok && h.res != nil {
			r = h.res
		}
		if r != nil {
			again = append(again, r)
		}
	}
	if len(again) == 0 {
		return nil
	}
	return st.send(sub, again, nil)
}

func (st *stream) sendRemovals(k kind) error {
	sub := st.subs[k]
	if !sub.asked {
		return nil
	}
	st.mu.Lock()
	gone := sub.remove(group(st.snapshot, k))
	st.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	var empty []*resource.Resource
	if k == endpoints { // its cluster is still there, or it would not ask
		for _, name := range gone {
			e, err := emptyEndpoints(name)
			if err != nil {
				return err
			}
			empty = append(empty, e)
		}
		gone = nil
	}
	err := st.send(sub, empty, gone)
	sub.need = sub.sent
	return err
}

// maxResponse splits responses, so that neither side needs room for a whole mesh at once. Virtual hosts come together, or one could have a domain that
// another is about to give up.
const maxResponse = 1 << 20

// send writes changed and removed in as few responses as maxResponse allows; a state-of-the-world response that must be complete is.
func (st *stream) send(sub *subscription, changed []*resource.Resource, removed []string) error {
	if !st.delta {
		if sub.kind == secrets && len(changed) == 0 {
			return nil // to Envoy an answer without a secret is a fault
		}
		if sub.kind.full() {
			changed = sub.state()
		}
		return st.write(sub, changed, nil)
	}
	for {
		n, size := 0, 0
		for n < len(changed) && (n == 0 || size < maxResponse || sub.kind == virtualHosts) {
			size += len(changed[n].Delta())
			n++
		}
		if n == len(changed) {
			return st.write(sub, changed, removed)
		}
		if err := st.write(sub, changed[:n], nil); err != nil {
			return err
		}
		changed = changed[n:]
	}
}

func (st *stream) write(sub *subscription, resources []*resource.Resource, removed []string) error {
	k := sub.kind
	nonce := st.server.newNonce()
	var f *frame
	if st.delta {
		f = deltaFrame(k.url(), nonce, resources, removed)
	} else {
		state := resources
		if !k.full() {
			state = sub.state()
		}
		f = sotwFrame(k.url(), nonce, digest(state), resources)
	}
	st.mu.Lock()
	sub.sent++
	if len(sub.outstanding) == 0 {
		sub.since = time.Now()
	}
	sub.outstanding = append(sub.outstanding, response{nonce, sub.sent, resources, removed})
	st.mu.Unlock()
	c := &st.server.stats
	c.responses[k].Add(1)
	c.resources[k].Add(uint64(len(resources)))
	c.bytes[k].Add(uint64(f.size))
	return st.put(f)
}

// report is the stream's line of proxystatus.
func (st *stream) report() proxystatus.Proxy {
	st.mu.Lock()
	defer st.mu.Unlock()
	p := proxystatus.Proxy{
		Name: st.proxy.Workload.Name, Namespace: st.proxy.Workload.Namespace, Role: string(st.proxy.Type),
		Pilot: st.server.cfg.Pilot, Version: st.version, Connected: st.connected, Types: make(map[string]proxystatus.Type, kinds),
	}
	for k, sub := range st.subs {
		if !sub.asked && kind(k) > routes {
			continue // which not every proxy has
		}
		t := proxystatus.Type{State: proxystatus.NotSent, Since: sub.since, Resources: sub.count()}
		switch {
		case !sub.asked:
		case len(sub.refused) > 0:
			t.State = proxystatus.Error
			last := Rejection{}
			for _, r := range sub.refused {
				if r.At.After(last.At) || r.At.Equal(last.At) && r.Resource < last.Resource {
					last = r
				}
			}
			t.Message, t.Rejected, t.Since = last.Text, &last.At, last.At
		case len(sub.outstanding) > 0:
			t.State = proxystatus.Stale
		case sub.sent > 0 || !sub.answer:
			t.State = proxystatus.Synced
		}
		p.Types[sub.kind.String()] = t
	}
	return p
}
