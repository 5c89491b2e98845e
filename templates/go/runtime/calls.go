package runtime

import (
	"sync"
	"time"
)

// callList holds the calls that run against the timeout, the oldest first.
type callList struct {
	mutex          sync.Mutex
	oldest, newest *call
}

func (l *callList) add(c *call) {
	l.mutex.Lock()
	c.listed, c.older = true, l.newest
	if l.newest == nil {
		l.oldest = c
	} else {
		l.newest.newer = c
	}
	l.newest = c
	l.mutex.Unlock()
}

func (l *callList) remove(c *call) {
	l.mutex.Lock()
	l.unlink(c)
	l.mutex.Unlock()
}

// takeOlder removes and returns a call that began before the time; nil when there is none.
func (l *callList) takeOlder(than time.Time) *call {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	c := l.oldest
	if c == nil || c.begun.After(than) {
		return nil
	}
	l.unlink(c)
	return c
}

func (l *callList) unlink(c *call) {
	if !c.listed {
		return
	}
	if c.older == nil {
		l.oldest = c.newer
	} else {
		c.older.newer = c.newer
	}
	if c.newer == nil {
		l.newest = c.older
	} else {
		c.newer.older = c.older
	}
	c.listed, c.older, c.newer = false, nil, nil
}
