package meshd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/meshctl/meshctl/internal/xds"
)

// pilotMetrics are what the pilot role tells Prometheus.
type pilotMetrics struct {
	registry      *prometheus.Registry
	builds        prometheus.Histogram
	failedBuilds  prometheus.Counter
	generation    prometheus.Gauge
	objectsErrors *prometheus.GaugeVec
	statusWrites  *prometheus.CounterVec
}

func newPilotMetrics(server *xds.Server) *pilotMetrics {
	m := &pilotMetrics{
		registry: prometheus.NewRegistry(),
		builds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mesh_pilot_build_duration_seconds", Help: "Time to make the mesh from the cluster's objects.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		failedBuilds: prometheus.NewCounter(prometheus.CounterOpts{Name: "mesh_pilot_failed_builds_total", Help: "Builds given up, after which the mesh before stays in force."}),
		generation:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "mesh_pilot_generation", Help: "Number of the newest mesh published to proxies."}),
		objectsErrors: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mesh_pilot_objects_with_findings", Help: "Mesh objects that have findings, by the gravest severity.",
		}, []string{"severity"}),
		statusWrites: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mesh_pilot_status_writes_total", Help: "Writes of objects' status, by result."}, []string{"result"}),
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.builds, m.failedBuilds, m.generation, m.objectsErrors, m.statusWrites, &xdsCollector{server: server})
	return m
}

func (m *pilotMetrics) built(took time.Duration) { m.builds.Observe(took.Seconds()) }

// xdsCollector reads the server's own counters.
type xdsCollector struct{ server *xds.Server }

func (c *xdsCollector) describe() (connected, responses, resources, bytes, rejections *prometheus.Desc) {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("mesh_pilot_"+name, help, labels, nil)
	}
	return d("connected_proxies", "Proxies connected to this instance."),
		d("push_responses_total", "xDS responses sent.", "type"),
		d("push_resources_total", "xDS resources sent.", "type"),
		d("push_bytes_total", "Bytes of xDS responses sent.", "type"),
		d("rejections_total", "xDS responses that proxies rejected.", "type")
}

// Describe implements prometheus.Collector.
func (c *xdsCollector) Describe(ch chan<- *prometheus.Desc) {
	a, b, d, e, f := c.describe()
	for _, x := range []*prometheus.Desc{a, b, d, e, f} {
		ch <- x
	}
}

// Collect implements prometheus.Collector.
func (c *xdsCollector) Collect(ch chan<- prometheus.Metric) {
	connected, responses, resources, bytes, rejections := c.describe()
	s := c.server.Stats()
	ch <- prometheus.MustNewConstMetric(connected, prometheus.GaugeValue, float64(s.Connected))
	for desc, values := range map[*prometheus.Desc]map[string]uint64{responses: s.Responses, resources: s.Resources, bytes: s.Bytes, rejections: s.Rejections} {
		for kind, v := range values {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v), kind)
		}
	}
}
