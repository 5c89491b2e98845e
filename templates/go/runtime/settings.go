package runtime

import (
	"os"
	"strconv"
	"time"
)

// settings is what the process is told, by its environment (contract section 8.1).
type settings struct {
	local         bool
	listener      int
	status        int
	log           string
	port          int
	lock          string
	timeout       time.Duration
	maxInflight   int64
	concurrency   int
	drainDelay    time.Duration
	healthPeriod  time.Duration
	healthTimeout time.Duration
	healthFaults  int
	healthGood    int
	replaceAfter  time.Duration
	metricsPort   int
}

func readSettings() settings {
	_, local := os.LookupEnv("STOKER_LISTENER")
	s := settings{
		local:         local,
		listener:      number("STOKER_LISTENER", -1),
		status:        number("STOKER_STATUS", -1),
		log:           os.Getenv("STOKER_LOG"),
		port:          number("port", 8080),
		lock:          "/tmp/.lock",
		timeout:       duration("exec_timeout", 30*time.Second),
		maxInflight:   int64(number("max_inflight", 0)),
		concurrency:   number("STOKER_CONCURRENCY", 0),
		healthPeriod:  duration("STOKER_HEALTH_PERIOD", 2*time.Second),
		healthTimeout: duration("STOKER_HEALTH_TIMEOUT", time.Second),
		healthFaults:  atLeastOne(number("STOKER_HEALTH_FAILURES", 3)),
		healthGood:    atLeastOne(number("STOKER_HEALTH_SUCCESSES", 1)),
		replaceAfter:  duration("STOKER_REPLACE_AFTER", 60*time.Second),
		metricsPort:   number("STOKER_METRICS_PORT", 8081),
	}
	if text := os.Getenv("suppress_lock"); text == "true" || text == "1" {
		s.lock = ""
	}
	if !local {
		s.drainDelay = duration("healthcheck_interval", duration("write_timeout", 30*time.Second))
		setDefault("STOKER_SECRETS", "/var/openfaas/secrets")
	}
	return s
}

// duration reads `1m30s` or a bare number of seconds; what is neither is the default.
func duration(name string, otherwise time.Duration) time.Duration {
	text := os.Getenv(name)
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 {
		return time.Duration(seconds * float64(time.Second))
	}
	if value, err := time.ParseDuration(text); err == nil && value >= 0 {
		return value
	}
	return otherwise
}

func number(name string, otherwise int) int {
	if value, err := strconv.Atoi(os.Getenv(name)); err == nil && value >= 0 {
		return value
	}
	return otherwise
}

func atLeastOne(value int) int {
	if value < 1 {
		return 1
	}
	return value
}

func setDefault(name, value string) {
	if _, there := os.LookupEnv(name); !there {
		os.Setenv(name, value)
	}
}
