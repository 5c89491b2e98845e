package runtime

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	maxLine  = 64 * 1024
	fileSize = 16 * 1024 * 1024
	rate     = 10_000_000
	burst    = 20_000_000
	stamp    = "2006-01-02T15:04:05.000000Z"
)

// original keeps descriptors 1 and 2 open: a file that nobody holds any more is closed by the garbage collector.
var original = [2]*os.File{os.Stdout, os.Stderr}

// logFile writes records, `RS time SP call-id SP text LF`, to descriptor 2, which is the log file under Stoker.
type logFile struct {
	mutex    sync.Mutex
	path     string
	written  int64
	budget   float64
	refilled time.Time
	dropped  int
	printed  *os.File
	copied   chan struct{}
}

// installLog makes prints go to the log. What package log writes is there at once; what goes to os.Stdout and os.Stderr
// takes the way through a pipe.
func installLog(path string) *logFile {
	file := &logFile{path: path, budget: burst, refilled: time.Now(), copied: make(chan struct{})}
	if info, err := original[1].Stat(); err == nil && path != "" {
		file.written = info.Size()
	}
	log.SetOutput(file)
	log.SetFlags(0)
	reader, writer, err := os.Pipe()
	if err != nil {
		close(file.copied)
		return file
	}
	os.Stdout, os.Stderr, file.printed = writer, writer, writer
	go file.copy(reader)
	return file
}

// flush waits until everything printed is in the log; nothing can be printed any more.
func (f *logFile) flush() {
	if f.printed != nil {
		f.printed.Close()
	}
	select {
	case <-f.copied:
	case <-time.After(time.Second):
	}
}

func (f *logFile) copy(reader io.Reader) {
	defer close(f.copied)
	lines := bufio.NewReaderSize(reader, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			f.lines("-", bytes.TrimSuffix(line, []byte("\n")))
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

// Write takes whole lines, as package log gives them.
func (f *logFile) Write(text []byte) (int, error) {
	f.lines("-", bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))...)
	return len(text), nil
}

func (f *logFile) say(call, format string, values ...any) {
	text := fmt.Sprintf(format, values...)
	f.lines(call, bytes.Split([]byte(text), []byte("\n"))...)
}

func (f *logFile) lines(call string, lines ...[]byte) {
	var block bytes.Buffer
	at := time.Now().UTC().Format(stamp)
	for _, line := range lines {
		record(&block, at, call, line)
	}
	f.put(block.Bytes(), len(lines))
}

func record(block *bytes.Buffer, at, call string, line []byte) {
	fmt.Fprintf(block, "\x1e%s %s ", at, call)
	if len(line) > maxLine {
		block.Write(line[:maxLine])
		fmt.Fprintf(block, " [stoker: %d bytes of this line dropped]", len(line)-maxLine)
	} else {
		block.Write(line)
	}
	block.WriteByte('\n')
}

func (f *logFile) put(block []byte, lines int) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if !f.allow(len(block)) {
		f.dropped += lines
		return
	}
	if f.dropped > 0 {
		var notice bytes.Buffer
		text := fmt.Sprintf("[stoker: %d lines dropped here: more than %d MB a second]", f.dropped, rate/1_000_000)
		record(&notice, time.Now().UTC().Format(stamp), "-", []byte(text))
		f.dropped = 0
		block = append(notice.Bytes(), block...)
	}
	writeAll(2, block)
	f.written += int64(len(block))
	if f.path != "" && f.written > fileSize {
		f.rotate()
	}
}

func (f *logFile) allow(size int) bool {
	now := time.Now()
	f.budget += now.Sub(f.refilled).Seconds() * rate
	if f.budget > burst {
		f.budget = burst
	}
	f.refilled = now
	if float64(size) > f.budget {
		return false
	}
	f.budget -= float64(size)
	return true
}

func (f *logFile) rotate() {
	if os.Rename(f.path, f.path+".1") != nil {
		return
	}
	fresh, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	syscall.Dup3(int(fresh.Fd()), 1, 0)
	syscall.Dup3(int(fresh.Fd()), 2, 0)
	fresh.Close()
	f.written = 0
}

// writeAll gives up on errors: a full disk must not fail a call.
func writeAll(descriptor int, block []byte) {
	for len(block) > 0 {
		done, err := syscall.Write(descriptor, block)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return
		}
		block = block[done:]
	}
}
