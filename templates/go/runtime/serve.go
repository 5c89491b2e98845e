// Package runtime is what stands between Stoker (or a container) and the handler: it serves HTTP/1.1, keeps the limits,
// writes the log, and drains. Under Stoker it gets a listening socket; without one it listens on `port`.
package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	longestHead = 96 * 1024 // the proxy takes 64 KB, and adds its own
)

type connectionKey struct{}

// Serve runs the function until it is told to end. It does not return.
func Serve(handle http.HandlerFunc, hooks Hooks) {
	s := readSettings()
	file := installLog(s.log)
	err := serve(s, file, handle, hooks)
	if err != nil {
		file.say("-", "the function ends: %v", err)
		report(s, map[string]any{"failed": err.Error(), "code": codeOf(err)})
	}
	file.flush()
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(s settings, file *logFile, handle http.HandlerFunc, hooks Hooks) error {
	if err := hooks.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := run(ctx, hooks.Init); err != nil {
		return initError{err}
	}
	f := newFront(s, handle, file)
	if hooks.Health != nil {
		tell := func(reason string) { f.isUnhealthy(reason); tellHealth(s, file, reason) }
		sick := first(ctx, hooks.Health, s, tell)
		go watch(ctx, hooks.Health, s, sick, tell)
	}
	servers, failed, err := listen(s, f)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	report(s, map[string]any{"ready": map[string]any{}})
	select {
	case err := <-failed:
		return err
	case <-stop:
	}
	cancel()
	drain(s, f, servers)
	if err := run(context.Background(), hooks.Close); err != nil {
		file.say("-", "the hook Close failed: %v", err)
	}
	return nil
}

// initError is a failed hook Init.
type initError struct{ cause error }

func (e initError) Error() string { return "the handler failed while it started: " + e.cause.Error() }

// codeOf is the code that Stoker shows for an end before the first call.
func codeOf(err error) string {
	if _, failed := err.(initError); failed {
		return "init-failed"
	}
	return "cannot-start"
}

// report writes one line to the status descriptor, when there is one.
func report(s settings, status map[string]any) {
	if s.status < 0 {
		return
	}
	if line, err := json.Marshal(status); err == nil {
		writeAll(s.status, append(line, '\n'))
	}
}

func tellHealth(s settings, file *logFile, reason string) {
	if reason != "" {
		file.say("-", "health: %s", reason)
	}
	report(s, map[string]any{"health": reason})
}

// listen starts the servers; idle connections stay open: the proxy closes its own, and no call must meet a close.
func listen(s settings, f *front) ([]*http.Server, chan error, error) {
	listener, err := mainListener(s)
	if err != nil {
		return nil, nil, err
	}
	failed := make(chan error, 2)
	keep := func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, c)
	}
	servers := []*http.Server{{Handler: f, MaxHeaderBytes: longestHead, ConnContext: keep}}
	start := func(server *http.Server, listener net.Listener) {
		if err := server.Serve(listener); err != http.ErrServerClosed {
			failed <- err
		}
	}
	if !s.local {
		second, err := net.Listen("tcp", fmt.Sprintf(":%d", s.metricsPort))
		if err != nil {
			return nil, nil, err
		}
		pages := http.NewServeMux()
		pages.HandleFunc("/metrics", f.serveMetrics)
		servers = append(servers, &http.Server{Handler: pages})
		go start(servers[1], second)
	}
	go start(servers[0], listener)
	if !s.local && s.lock != "" {
		err = os.WriteFile(s.lock, nil, 0o600)
	}
	return servers, failed, err
}

func mainListener(s settings) (net.Listener, error) {
	if s.local {
		return net.FileListener(os.NewFile(uintptr(s.listener), "listener"))
	}
	return net.Listen("tcp", fmt.Sprintf(":%d", s.port))
}

// drain is contract section 8.4: unready first, serve on for a while, then no new connections, then wait for the calls.
func drain(s settings, f *front, servers []*http.Server) {
	f.draining.Store(true)
	if !s.local && s.lock != "" {
		os.Remove(s.lock)
	}
	time.Sleep(s.drainDelay)
	ctx, cancel := context.Background(), func() {}
	if s.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
	}
	defer cancel()
	for _, server := range servers {
		server.Shutdown(ctx)
	}
}
