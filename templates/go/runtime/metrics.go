package runtime

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

var (
	buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
	methods = map[string]string{
		"GET": "get", "POST": "post", "PUT": "put", "PATCH": "patch", "DELETE": "delete", "HEAD": "head",
		"OPTIONS": "options", "CONNECT": "connect", "TRACE": "trace",
	}
)

type answerKind struct {
	method string
	code   int
}

type counted struct {
	slots   [12]int64
	seconds float64
}

// metrics are a replica's own counters (contract section 7.2).
type metrics struct {
	mutex sync.Mutex
	kinds map[answerKind]*counted
	order []answerKind
}

func (m *metrics) count(method string, code int, took time.Duration) {
	name, known := methods[method]
	if !known {
		name = "unknown"
	}
	kind, seconds := answerKind{name, code}, took.Seconds()
	bucket := 0
	for bucket < len(buckets) && seconds > buckets[bucket] {
		bucket++
	}
	m.mutex.Lock()
	one := m.kinds[kind]
	if one == nil {
		one = &counted{}
		m.kinds[kind] = one
		m.order = append(m.order, kind)
	}
	one.slots[bucket]++
	one.seconds += seconds
	m.mutex.Unlock()
}

// render writes the Prometheus text format.
func (m *metrics) render(inFlight int64) string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var totals, times strings.Builder
	for _, kind := range m.order {
		one := m.kinds[kind]
		labels := fmt.Sprintf("code=\"%d\",method=\"%s\"", kind.code, kind.method)
		var below int64
		for index, number := range one.slots {
			below += number
			bound := "+Inf"
			if index < len(buckets) {
				bound = fmt.Sprint(buckets[index])
			}
			fmt.Fprintf(&times, "http_request_duration_seconds_bucket{%s,le=\"%s\"} %d\n", labels, bound, below)
		}
		fmt.Fprintf(&times, "http_request_duration_seconds_sum{%s} %.6f\n", labels, one.seconds)
		fmt.Fprintf(&times, "http_request_duration_seconds_count{%s} %d\n", labels, below)
		fmt.Fprintf(&totals, "http_requests_total{%s} %d\n", labels, below)
	}
	return "# TYPE http_requests_total counter\n" + totals.String() +
		"# TYPE http_request_duration_seconds histogram\n" + times.String() +
		fmt.Sprintf("# TYPE http_requests_in_flight gauge\nhttp_requests_in_flight %d\n", inFlight)
}
