package runtime

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	tick  = 100 * time.Millisecond
	plain = "text/plain; charset=utf-8"
)

// front is health, readiness, metrics, the limits of calls at once, and the timeout (contract section 8.5).
// `max_inflight` refuses what is over it, `STOKER_CONCURRENCY` lets it wait its turn.
type front struct {
	settings settings
	handle   http.HandlerFunc
	log      *logFile
	metrics  metrics
	draining atomic.Bool
	sickness atomic.Pointer[sickness]
	running  atomic.Int64
	places   chan struct{}
	calls    callList
}

// sickness is why the hook Health says no, and since when.
type sickness struct {
	reason string
	since  time.Time
}

func newFront(s settings, handle http.HandlerFunc, log *logFile) *front {
	f := &front{settings: s, handle: handle, log: log}
	f.metrics.kinds = map[answerKind]*counted{}
	if s.concurrency > 0 {
		f.places = make(chan struct{}, s.concurrency)
	}
	if s.timeout > 0 {
		go f.expire()
	}
	return f
}

// ServeHTTP answers one request.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.RequestURI) > 2 && r.RequestURI[1] == '_' && f.ownPage(w, r) {
		return
	}
	c := newCall(f, w, r)
	defer c.end()
	if c.gather() && c.admit() {
		c.run()
	}
}

func (f *front) ownPage(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.RequestURI != "/_/health" && r.RequestURI != "/_/ready" && r.RequestURI != "/_/metrics":
		return false
	case r.Method != http.MethodGet:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case r.RequestURI == "/_/metrics":
		f.serveMetrics(w, r)
	case f.draining.Load():
		answer(w, http.StatusServiceUnavailable, "draining\n")
	default:
		f.answerProbe(w, r.RequestURI)
	}
	return true
}

func (f *front) answerProbe(w http.ResponseWriter, page string) {
	if reason := f.refusal(page); reason != "" {
		answer(w, http.StatusServiceUnavailable, "unhealthy: "+reason+"\n")
	} else if page == "/_/ready" && f.full() {
		answer(w, http.StatusTooManyRequests, "at max_inflight\n")
	} else {
		answer(w, http.StatusOK, "OK")
	}
}

// isUnhealthy takes what Health says; an empty reason when it is well again.
func (f *front) isUnhealthy(reason string) {
	if reason == "" {
		f.sickness.Store(nil)
		return
	}
	if reason = strings.Join(strings.Fields(reason), " "); len(reason) > 200 {
		reason = strings.ToValidUTF8(reason[:200], "")
	}
	f.sickness.Store(&sickness{reason, time.Now()})
}

// refusal is why a probe's page says no: readiness at once, health when it is better replaced.
func (f *front) refusal(page string) string {
	sick := f.sickness.Load()
	if sick == nil {
		return ""
	}
	after := f.settings.replaceAfter
	if page == "/_/ready" || (after > 0 && time.Since(sick.since) >= after) {
		return sick.reason
	}
	return ""
}

func (f *front) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	io.WriteString(w, f.metrics.render(f.running.Load()))
}

func (f *front) full() bool {
	return f.settings.maxInflight > 0 && f.running.Load() >= f.settings.maxInflight
}

// expire looks after the oldest calls; all have the same timeout, so the list is in the order of deadlines.
func (f *front) expire() {
	for range time.Tick(tick) {
		oldest := time.Now().Add(-f.settings.timeout)
		for c := f.calls.takeOlder(oldest); c != nil; c = f.calls.takeOlder(oldest) {
			go c.expire()
		}
	}
}

func answer(w http.ResponseWriter, status int, text string) {
	header := w.Header()
	header.Set("Content-Type", plain)
	header.Set("Content-Length", fmt.Sprint(len(text)))
	w.WriteHeader(status)
	io.WriteString(w, text)
}
