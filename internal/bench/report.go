package main

import (
	"fmt"
	"strings"
)

// allowance is how far "the same" may be off.
const allowance = 1.2

// report is the text that is printed and kept. The first thing missing ends it.
type report struct {
	results results
	text    strings.Builder
	goals   int
	missed  []string
	err     error
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(&r.text, format, args...) }

// table writes a table; columns but the first are set to the right.
func (r *report) table(head []string, rows ...[]string) {
	r.printf("\n| %s |\n|---%s|\n", strings.Join(head, " | "), strings.Repeat("|---:", len(head)-1))
	for _, row := range rows {
		r.printf("| %s |\n", strings.Join(row, " | "))
	}
	r.printf("\n")
}

// of is a benchmark's metric.
func (r *report) of(name, unit string) float64 {
	v, err := r.results.get(name, unit)
	if err != nil && r.err == nil {
		r.err = err
	}
	return v
}

// cpu is the processor time of one round of a benchmark in milliseconds.
func (r *report) cpu(name string) float64 { return r.of(name, "cpu-ns/op") / 1e6 }

// goal says whether a figure is within its bound, and remembers when it is not.
func (r *report) goal(what string, is, bound float64) string {
	r.goals++
	if is <= bound {
		return "met"
	}
	said := fmt.Sprintf("missed, %s", times(is/bound))
	r.missed = append(r.missed, fmt.Sprintf("%s (%s of the goal)", what, times(is/bound)))
	return said
}

// number has three digits that count.
func number(v float64) string {
	switch {
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.0995 || v == 0:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.2g", v)
	}
}

func times(v float64) string { return number(v) + "×" }

func duration(ms float64) string {
	if ms >= 1000 {
		return number(ms/1000) + " s"
	}
	return number(ms) + " ms"
}

func size(bytes float64) string {
	switch {
	case bytes >= 1<<20:
		return number(bytes/(1<<20)) + " MiB"
	case bytes >= 1<<10:
		return number(bytes/(1<<10)) + " KiB"
	}
	return fmt.Sprintf("%.0f B", bytes)
}

// files are the steps that the command line does with files, against reading them as YAML at all.
func (r *report) files() {
	r.printf("\n## Files\n\nA file of 1,000 objects, against what it takes sigs.k8s.io/yaml to make plain values of the same bytes: processor time.\n")
	parse := r.cpu("Rules/Parse")
	decode, judge := r.cpu("Rules/Decode"), r.cpu("Check")
	manifests, rewrite, inject := r.cpu("Deployments/Parse"), r.cpu("Deployments/Copy"), r.cpu("Deployments/Inject")
	r.table([]string{"step", "here", "parsing alone", "ratio"},
		[]string{"RouteRules: read strictly, with positions", duration(decode), duration(parse), times(decode / parse)},
		[]string{"RouteRules: judge each and all together", duration(judge), duration(parse), times(judge / parse)},
		[]string{"RouteRules: both", duration(decode + judge), duration(parse), times((decode + judge) / parse)},
		[]string{"Deployments: parse and print again, for comparison", duration(rewrite), duration(manifests), times(rewrite / manifests)},
		[]string{"Deployments: inject, text kept", duration(inject), duration(manifests), times(inject / manifests)},
	)
}

// programs are whole runs of meshctl against a peer's published figures.
func (r *report) programs(version, validate cost) {
	r.printf("\n## Runs of meshctl\n\nProcessor time and peak memory of the process, medians. The peer's are published figures of a modern mesh's command, not measured here.\n")
	row := func(what string, is, peer, goal float64, show func(float64) string) []string {
		return []string{what, show(is), show(peer), times(is / peer), show(goal), r.goal(what, is, goal)}
	}
	const mib = 1 << 20
	ms := func(c cost) float64 { return c.cpu.Seconds() * 1000 }
	judged := row("validate 1,000 rules: processor time", ms(validate), 480, 150, duration)
	r.table([]string{"run", "here", "peer (published)", "ratio", "goal", ""},
		row("version --client: processor time", ms(version), 53, 20, duration),
		row("version --client: memory", float64(version.peak), 68*mib, 35*mib, size),
		judged,
		[]string{"validate 1,000 rules: memory", size(float64(validate.peak)), size(75 * mib), times(float64(validate.peak) / (75 * mib)), "", ""},
	)
}

// translation is what an edit costs against the whole, and the bytes it moves against those it is about.
func (r *report) translation() {
	r.printf("\n## Objects to Envoy's configuration\n\nServices of 10 instances in 10 namespaces; the objects made a mesh (ingest) and that translated for a sidecar of each namespace (envoy); processor time.\n" +
		"An edit's cost should be that of the change: the ratio to the whole falls with the size of the mesh, and what an edit costs does not grow.\n")
	var rows [][]string
	cost := func(kind string, services int) (ingest, envoy float64) {
		return r.cpu(fmt.Sprintf("Ingest/%s/services=%d", kind, services)), r.cpu(fmt.Sprintf("Envoy/%s/services=%d", kind, services))
	}
	sum := func(kind string, services int) float64 {
		ingest, envoy := cost(kind, services)
		return ingest + envoy
	}
	for _, services := range []int{100, 1000, 5000} {
		for _, kind := range []string{"Whole", "RouteEdit", "EndpointEdit"} {
			ingest, envoy := cost(kind, services)
			growth := times(sum(kind, services) / sum(kind, 100))
			rows = append(rows, []string{fmt.Sprintf("%d services, %s", services, kinds[kind]), duration(ingest), duration(envoy),
				times((ingest + envoy) / sum("Whole", services)), growth})
		}
	}
	r.table([]string{"work", "ingest", "envoy", "of the whole", "of 100 services'"}, rows...)
	for _, kind := range []string{"RouteEdit", "EndpointEdit"} {
		r.printf("Goal: an edit costs the same, within 20 %%, with 5,000 services as with 100. %s: %s.\n\n", strings.ToUpper(kinds[kind][:1])+kinds[kind][1:],
			r.goal(kinds[kind]+", computing with 5,000 services against 100", sum(kind, 5000)/sum(kind, 100), allowance))
	}
	rows = nil
	for _, services := range []int{100, 1000, 5000} {
		for _, kind := range []string{"RouteEdit", "EndpointEdit"} {
			name := fmt.Sprintf("Envoy/%s/services=%d", kind, services)
			made, moved, needed := r.of(name, "made-B"), r.of(name, "moved-B"), r.of(name, "needed-B")
			what := fmt.Sprintf("%d services, %s", services, kinds[kind])
			rows = append(rows, []string{what, size(made), size(moved), size(needed), times(moved / needed), r.goal(what+", bytes moved against needed", moved/needed, allowance)})
		}
	}
	r.printf("What one proxy holds, what of it an edit changes and so moves, and what the edit is about: the service's virtual host, or its endpoints. Goal: no more than 20 %% above that.\n")
	r.table([]string{"edit", "held", "moved", "needed", "moved / needed", ""}, rows...)
}

var kinds = map[string]string{"Whole": "from nothing", "RouteEdit": "after a route edit", "EndpointEdit": "after an endpoint edit"}

// server is the ADS server by itself.
func (r *report) server() {
	r.printf("\n## The xDS server\n\n1,000 services of 10 instances, all proxies alike, in one process with the server: the time is that of the server, the loopback and of the proxies' reading.\n" +
		"Needed are the bytes of the resources; sent are those of the responses, with names, versions and types.\n")
	var rows [][]string
	for _, kind := range []string{"Storm", "Edit"} {
		what := map[string]string{"Storm": "all connect, until each has everything", "Edit": "one route configuration changes, until the last has it"}[kind]
		for _, proxies := range []int{1, 100, 500} {
			name := fmt.Sprintf("ADS/%s/proxies=%d", kind, proxies)
			sent, needed := r.of(name, "sent-B"), r.of(name, "needed-B")
			rows = append(rows, []string{fmt.Sprintf("%d: %s", proxies, what), duration(r.of(name, "ns/op") / 1e6), duration(r.cpu(name)), size(sent), size(needed), times(sent / needed)})
		}
	}
	r.table([]string{"proxies", "time", "processor, both sides", "sent", "needed", "sent / needed"}, rows...)
}

// peer are published figures and the goals set against them, of 500 proxies: by number of services.
type peer struct {
	what, name, unit string
	show             func(float64) string
	// published and goal for 100 and 1,000 services; a goal of 0 is the bytes that the edit is about, and room for names.
	published, goal [2]float64
}

func peers() []peer {
	mib := func(v float64) string { return size(v * (1 << 20)) }
	return []peer{
		{"connect storm, all 500 configured", "Storm", "ms", duration, [2]float64{2500, 25600}, [2]float64{1200, 5000}},
		{"its processor time", "Storm", "cpu-ms", duration, [2]float64{3900, 41500}, [2]float64{400, 4000}},
		{"peak memory", "Storm", "peak-MiB", mib, [2]float64{830, 1765}, [2]float64{120, 250}},
		{"route edit to the last, median", "RouteEdit", "ms", duration, [2]float64{475, 2938}, [2]float64{40, 60}},
		{"its processor time", "RouteEdit", "cpu-ms", duration, [2]float64{530, 3980}, [2]float64{30, 30}},
		{"bytes per proxy and route edit", "RouteEdit", "sent-B", size, [2]float64{67 << 10, 512 << 10}, [2]float64{}},
		{"endpoint edit to the last, median", "EndpointEdit", "ms", duration, [2]float64{147, 192}, [2]float64{20, 25}},
		{"its processor time", "EndpointEdit", "cpu-ms", duration, [2]float64{67, 142}, [2]float64{20, 20}},
	}
}

// pilot is the whole control plane against a peer.
func (r *report) pilot() {
	r.printf("\n## Pilot\n\n`meshd pilot` with a real API server, services of 10 instances, 500 proxies over incremental ADS. The peer's are published figures of a well-known control plane\n" +
		"(release 1.28, its request limit lifted, incremental, same load on a 2-core machine), not measured here. An edit's time begins before the request to the API\n" +
		"server and ends when the last proxy has acknowledged. The proxies' own processor time, on the same cores, is not counted but competes.\n" +
		"`taskset -c 0,1 make bench` takes all figures on two cores.\n")
	for i, services := range []int{100, 1000} {
		var rows [][]string
		for _, p := range peers() {
			is := r.of(fmt.Sprintf("Pilot/%s/services=%d/proxies=500", p.name, services), p.unit)
			goal := p.goal[i]
			if goal == 0 {
				goal = allowance * r.of(fmt.Sprintf("Envoy/RouteEdit/services=%d", services), "needed-B")
			}
			what := p.what
			if strings.HasPrefix(what, "its ") {
				what = map[string]string{"Storm": "connect storm", "RouteEdit": "route edit", "EndpointEdit": "endpoint edit"}[p.name] + ", processor time"
			}
			rows = append(rows, []string{what, p.show(is), p.show(p.published[i]), times(is / p.published[i]), p.show(goal), r.goal(fmt.Sprintf("%d services: %s", services, what), is, goal)})
		}
		r.table([]string{fmt.Sprintf("%d services", services), "here", "peer (published)", "ratio", "goal", ""}, rows...)
	}
	r.printf("The same with 1,000 services and other numbers of proxies: what an edit costs Pilot should not depend on them.\n")
	var rows [][]string
	for _, proxies := range []int{1, 100, 500} {
		of := func(kind, unit string) float64 {
			return r.of(fmt.Sprintf("Pilot/%s/services=1000/proxies=%d", kind, proxies), unit)
		}
		rows = append(rows, []string{fmt.Sprint(proxies), duration(of("Storm", "ms")), duration(of("Storm", "cpu-ms")), number(of("Storm", "peak-MiB")) + " MiB",
			duration(of("RouteEdit", "ms")), duration(of("RouteEdit", "cpu-ms")), duration(of("EndpointEdit", "ms")), duration(of("EndpointEdit", "cpu-ms"))})
	}
	r.table([]string{"proxies", "storm", "processor", "memory", "route edit", "processor", "endpoint edit", "processor"}, rows...)
}

// sidecars are two of them in a request's way, against the least configuration.
func (r *report) sidecars() {
	r.printf("\n## A request through two sidecars\n\nCaptured pods in network namespaces, one connection, one request at a time; the same Envoys with the mesh's configuration of 100 services and with\n" +
		"a hand-written minimum, asked in turn.\n")
	var rows [][]string
	for _, p := range []struct{ what, unit string }{{"median", "p50-us"}, {"99th percentile", "p99-us"}} {
		mesh, least := r.of("Sidecars", "mesh-"+p.unit), r.of("Sidecars", "least-"+p.unit)
		rows = append(rows, []string{p.what, duration(mesh / 1000), duration(least / 1000), times(mesh / least), "1.03×", r.goal("request through two sidecars, "+p.what, mesh/least, 1.03)})
	}
	r.table([]string{"time of a request", "mesh", "minimum", "ratio", "goal", ""}, rows...)
}
