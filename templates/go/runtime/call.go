package runtime

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// inMemory is how much of a body waits in memory; a longer one waits in a temporary file.
const inMemory = 1 << 20

const clientGone = 499

// call is one call, and the ResponseWriter of its handler.
type call struct {
	front   *front
	out     http.ResponseWriter
	request *http.Request
	cancel  context.CancelFunc
	id      string
	begun   time.Time
	header  http.Header

	mutex   sync.Mutex
	status  int  // what was answered, 0 while nothing was
	closed  bool // nobody waits for more: the timeout has passed
	counted bool
	broken  bool // the answer cannot be completed

	spooled      *os.File
	older, newer *call
	listed       bool
	runs, placed bool
}

func newCall(f *front, w http.ResponseWriter, r *http.Request) *call {
	ctx, cancel := context.WithCancel(r.Context())
	c := &call{front: f, out: w, request: r.WithContext(ctx), cancel: cancel, id: "-", begun: time.Now(), header: http.Header{}}
	if ids := r.Header["X-Call-Id"]; len(ids) > 0 {
		c.id = ids[0]
	}
	if f.settings.timeout > 0 {
		f.calls.add(c)
	}
	return c
}

// gather reads the whole body before the handler runs: the proxy relies on that when a replica dies, and a handler may
// write before it has read. False when the client broke off.
func (c *call) gather() bool {
	body := c.request.Body
	if body == http.NoBody {
		return true
	}
	var begin bytes.Buffer
	read, err := io.Copy(&begin, io.LimitReader(body, inMemory))
	if err != nil {
		return false
	}
	c.request.Body = io.NopCloser(&begin)
	if read < inMemory {
		return true
	}
	return c.spool(io.MultiReader(&begin, body))
}

// spool puts a large body into a file without a name.
func (c *call) spool(body io.Reader) bool {
	file, err := os.CreateTemp("", "stoker-body-")
	if err != nil {
		c.failed(err)
		return false
	}
	os.Remove(file.Name())
	c.spooled = file
	if _, err = io.Copy(file, body); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	c.request.Body = file
	return err == nil
}

// admit takes a place, waits for one, or refuses. False when the call does not run.
func (c *call) admit() bool {
	f := c.front
	if f.places != nil && !f.full() {
		select {
		case f.places <- struct{}{}:
			c.placed = true
		case <-c.request.Context().Done():
			return false
		}
	}
	for most := f.settings.maxInflight; ; {
		running := f.running.Load()
		if most > 0 && running >= most {
			c.refuse(most)
			return false
		}
		if f.running.CompareAndSwap(running, running+1) {
			c.runs = true
			return true
		}
	}
}

func (c *call) refuse(most int64) {
	c.header.Set("X-OpenFaaS-Internal", "faas-middleware")
	text := fmt.Sprintf("Concurrent request limit exceeded. Max concurrent requests: %d\n", most)
	c.respond(http.StatusTooManyRequests, "text/plain", "function; max-inflight", text)
}

func (c *call) run() {
	defer func() {
		if cause := recover(); cause != nil {
			c.failed(cause)
		}
	}()
	c.front.handle(c, c.request)
}

func (c *call) failed(cause any) {
	if cause != http.ErrAbortHandler {
		c.front.log.say(c.id, "the handler failed\npanic: %v\n%s", cause, ours(debug.Stack()))
	}
	c.mutex.Lock()
	started := c.status != 0
	c.broken = started
	c.mutex.Unlock()
	if !started && cause == http.ErrAbortHandler {
		c.broken = true
		return
	}
	text := fmt.Sprintf("the handler panicked; the error is in the log under call id %s\n", c.id)
	c.respond(http.StatusInternalServerError, plain, "function; exception", text)
}

// ours cuts a stack to the frames below the panic, which are the function's.
func ours(stack []byte) string {
	text := strings.TrimSpace(string(stack))
	if at := strings.LastIndex(text, "\npanic("); at >= 0 {
		text = text[at+1:]
	}
	if at := strings.Index(text, "\nhandler/runtime.(*call).run"); at >= 0 {
		text = text[:at]
	}
	return text
}

// respond sends a whole answer of ours, unless one was begun.
func (c *call) respond(status int, kind, reason, text string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.status != 0 || c.closed {
		return
	}
	c.header.Set("X-Stoker-Error", reason)
	c.header.Set("Content-Type", kind)
	c.header.Set("Content-Length", fmt.Sprint(len(text)))
	c.start(status)
	io.WriteString(c.out, text)
}

// expire answers for a call whose timeout has passed. The handler learns of it by its context, and keeps its place.
func (c *call) expire() {
	defer c.cancel()
	if !c.mutex.TryLock() {
		c.cut() // it writes to a client that does not read
		c.mutex.Lock()
	}
	defer c.mutex.Unlock()
	if c.closed {
		return
	}
	c.count(http.StatusGatewayTimeout)
	c.closed = true
	if c.status != 0 {
		c.broken = true
		c.cut()
		return
	}
	c.status = http.StatusGatewayTimeout
	text := fmt.Sprintf("the call took longer than the function's timeout (%g s)\n", c.front.settings.timeout.Seconds())
	header := c.out.Header()
	header.Set("X-Stoker-Error", "function; timeout")
	header.Set("Connection", "close")
	answer(c.out, c.status, text)
	c.out.(http.Flusher).Flush()
}

// cut ends the client's connection.
func (c *call) cut() {
	if connection, ok := c.request.Context().Value(connectionKey{}).(net.Conn); ok {
		connection.Close()
	}
}

// count counts the call once.
func (c *call) count(status int) {
	if !c.counted {
		c.counted = true
		c.front.metrics.count(c.request.Method, status, time.Since(c.begun))
	}
}

// end is for whatever way the call took.
func (c *call) end() {
	f := c.front
	f.calls.remove(c)
	gone := c.request.Context().Err() != nil
	c.mutex.Lock()
	if gone && !c.closed {
		c.count(clientGone)
	} else if c.status == 0 {
		c.count(http.StatusOK)
		c.start(http.StatusOK)
	} else {
		c.count(c.status)
	}
	c.closed = true
	c.mutex.Unlock()
	c.cancel()
	if c.spooled != nil {
		c.spooled.Close()
	}
	if c.runs {
		f.running.Add(-1)
	}
	if c.placed {
		<-f.places
	}
	if c.broken {
		panic(http.ErrAbortHandler)
	}
}

// The handler's ResponseWriter

// Header has the fields to send; it is the handler's own until the first write.
func (c *call) Header() http.Header { return c.header }

// WriteHeader sends the head.
func (c *call) WriteHeader(status int) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if !c.closed && c.status == 0 {
		c.start(status)
	}
}

func (c *call) Write(data []byte) (int, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		return 0, http.ErrHandlerTimeout
	}
	if c.status == 0 {
		c.start(http.StatusOK)
	}
	return c.out.Write(data)
}

// Flush sends what was written.
func (c *call) Flush() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		return
	}
	if c.status == 0 {
		c.start(http.StatusOK)
	}
	c.out.(http.Flusher).Flush()
}

func (c *call) start(status int) {
	if status < 200 {
		c.out.WriteHeader(status)
		return
	}
	c.status = status
	header := c.out.Header()
	for name, values := range c.header {
		header[name] = values
	}
	if kinds := c.header["Content-Type"]; len(kinds) > 0 && strings.HasPrefix(kinds[0], "text/event-stream") {
		c.front.calls.remove(c) // the proxy bounds the silence between events
	}
	c.out.WriteHeader(status)
}
