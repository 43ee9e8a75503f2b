package l7

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/request/h1"
	"servent/request/proxy"
)

// answer is the engine's http.ResponseWriter. It behaves as net/http's does: an answer that ends within its first 2 KiB gets a
// Content-Length, a longer one without goes in chunks.
type answer struct {
	c    *conn
	r    *http.Request
	h    http.Header
	body *incoming // nil: none

	mu     sync.Mutex // orders the interim answers of other goroutines and the final one
	status int        // 0: not known yet

	length   int64 // declared, or −1
	n        int64 // bytes of the body
	early    []byte
	framed   bool // the head is complete: it says how the body ends
	chunked  bool
	typed    bool // Content-Type was decided
	empty    bool // the status or the method allows no body
	last     bool // the connection's last answer
	left     bool // bytes have left
	lingers  bool // the client may still be sending behind its last answer: see lastWord
	hijacked bool
	ends     []string // trailers that were announced
	err      error    // of a write
}

const (
	earlyMost = 2 << 10
	sniffed   = 512 // bytes that a type is guessed from
)

func (w *answer) Header() http.Header {
	if w.h == nil {
		w.h = http.Header{}
	}
	return w.h
}

// proceed says "100 Continue", unless the answer has begun.
func (w *answer) proceed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status == 0 && !w.hijacked {
		_ = w.c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n")) // who left is found out by what follows
	}
}

// WriteHeader begins the answer, or gives an interim one.
func (w *answer) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic("invalid status " + strconv.Itoa(status))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.hijacked || w.status != 0: // as net/http does, but for its complaint
	case status < 200 && status != http.StatusSwitchingProtocols:
		if w.r.ProtoMinor == 0 {
			return // RFC 9110 §15.2
		}
		if status == http.StatusContinue {
			if w.body != nil {
				w.body.asks.Store(false)
			}
			w.err = w.c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
			return
		}
		b := h1.AppendStatusLine(nil, 1, status)
		b = h1.AppendFields(b, w.h, func(name string) bool { return name == "Content-Length" || name == "Transfer-Encoding" })
		w.err = w.c.write(append(b, "\r\n"...))
	default:
		w.begin(status)
	}
}

// begin writes the head as far as it is known.
func (w *answer) begin(status int) {
	w.status = status
	h := w.h
	w.empty = w.r.Method == http.MethodHead || status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
	if l := h["Content-Length"]; len(l) > 0 {
		if n, err := strconv.ParseUint(strings.TrimSpace(l[0]), 10, 62); err == nil && len(l) == 1 {
			w.length = int64(n)
		} else {
			delete(h, "Content-Length")
		}
	}
	_, w.typed = h["Content-Type"]
	if len(h["Content-Encoding"]) > 0 || w.empty {
		w.typed = true
	}
	for _, line := range h["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			w.ends = append(w.ends, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	connection := h["Connection"]
	if len(connection) > 0 {
		w.last = slices.ContainsFunc(connection, func(line string) bool { return strings.EqualFold(line, "close") })
	}
	w.last = w.last || w.r.Close || w.body != nil && w.body.asks.Load() || w.c.e.stops.Load()
	out := h1.AppendStatusLine(w.c.out[:0], w.r.ProtoMinor, status)
	out = h1.AppendFields(out, h, w.skips)
	if _, ok := h["Date"]; !ok {
		out = append(out, "Date: "...)
		out = time.Now().UTC().AppendFormat(out, http.TimeFormat)
		out = append(out, "\r\n"...)
	}
	w.c.out = out
	if w.typed && (w.empty || w.length >= 0) {
		w.frame(false)
	}
}

func (w *answer) skips(name string) bool {
	switch name {
	case "Content-Length", "Transfer-Encoding":
		return true
	case "Connection":
		return w.last
	case "Content-Type":
		return w.status == http.StatusNotModified
	case "Trailer":
		return w.r.ProtoMinor == 0
	}
	return strings.HasPrefix(name, http.TrailerPrefix)
}

// frame completes the head: done says that early is the whole body.
func (w *answer) frame(done bool) {
	if w.framed {
		return
	}
	w.framed = true
	out := w.c.out
	if !w.typed && len(w.early) > 0 {
		out = h1.AppendField(out, "Content-Type", http.DetectContentType(w.early))
	}
	allowed := w.status >= 200 && w.status != http.StatusNoContent && w.status != http.StatusNotModified
	trailers := len(w.ends) > 0
	if done && w.length < 0 && !trailers {
		for name := range w.h {
			trailers = trailers || strings.HasPrefix(name, http.TrailerPrefix)
		}
	}
	switch {
	case !allowed:
	case w.length < 0 && done && !trailers && (w.r.Method != http.MethodHead || w.n > 0):
		w.length = w.n
		fallthrough
	case w.length >= 0:
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, w.length, 10)
		out = append(out, "\r\n"...)
	case w.empty:
	case w.r.ProtoMinor > 0:
		w.chunked = true
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	default:
		w.last = true
	}
	if w.last {
		out = append(out, "Connection: close\r\n"...)
	} else if w.r.ProtoMinor == 0 {
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	w.c.out = append(out, "\r\n"...)
	if early := w.early; len(early) > 0 {
		w.early = nil
		_ = w.emit(early) // kept in w.err
	}
}

// Write sends a part of the body.
func (w *answer) Write(p []byte) (int, error) {
	if w.hijacked {
		return 0, http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if w.empty && w.r.Method != http.MethodHead {
		return 0, http.ErrBodyNotAllowed
	}
	if w.length >= 0 && w.n+int64(len(p)) > w.length {
		return 0, http.ErrContentLength
	}
	if w.err != nil {
		return 0, w.err
	}
	w.n += int64(len(p))
	if !w.framed && w.r.Method != http.MethodHead {
		if !w.typed && (w.length >= 0 || len(w.early)+len(p) > earlyMost) {
			first := append(w.early, p[:min(len(p), sniffed)]...)
			w.typed, w.early = true, nil
			w.c.out = h1.AppendField(w.c.out, "Content-Type", http.DetectContentType(first))
			w.early = first[:len(first)-min(len(p), sniffed)]
		}
		if w.length < 0 && len(w.early)+len(p) <= earlyMost {
			w.early = append(w.early, p...)
			return len(p), nil
		}
		w.frame(false)
	}
	if err := w.emit(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// emit writes a piece of the body behind what is pending.
func (w *answer) emit(p []byte) error {
	if w.err != nil || len(p) == 0 || w.empty {
		return w.err
	}
	out := w.c.out
	if w.chunked {
		out = strconv.AppendInt(out, int64(len(p)), 16)
		out = append(out, "\r\n"...)
	}
	if len(out)+len(p)+2 <= cap(out) {
		out = append(out, p...)
		p = nil
	}
	if w.c.out = out; p != nil {
		if w.err = w.vector(p); w.err != nil {
			return w.err
		}
	}
	if w.chunked {
		w.c.out = append(w.c.out, "\r\n"...)
	}
	return nil
}

// vector sends what is pending and p at once.
func (w *answer) vector(p []byte) error {
	out := w.c.out
	w.c.out = out[:0]
	w.left = true
	tcp, ok := proxy.TCP(w.c.nc)
	var err error
	if never, is := w.c.nc.(interface{ WriteBoth(a, b []byte) error }); is {
		err = never.WriteBoth(out, p)
	} else if !ok || len(out) == 0 {
		if len(out) > 0 {
			err = w.c.write(out)
		}
		if err == nil {
			err = w.c.write(p)
		}
	} else {
		both := net.Buffers{out, p}
		for {
			w.c.writeBy()
			var n int64
			if n, err = both.WriteTo(tcp); err == nil || n == 0 || !os.IsTimeout(err) {
				break
			}
		}
	}
	if err != nil {
		w.c.left() // as net/http does: nobody is there to be answered
	}
	return err
}

// FlushError sends what is written so far.
func (w *answer) FlushError() error {
	if w.hijacked {
		return http.ErrHijacked
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.frame(false)
	return w.flush()
}

// Flush is FlushError for who asks for an http.Flusher.
func (w *answer) Flush() { _ = w.FlushError() }

func (w *answer) flush() error {
	out := w.c.out
	if w.err != nil || len(out) == 0 {
		return w.err
	}
	w.c.out = out[:0]
	w.left = true
	if w.err = w.c.write(out); w.err != nil {
		w.c.left()
	}
	return w.err
}

// ReadFrom lets files go out by sendfile.
func (w *answer) ReadFrom(r io.Reader) (n int64, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	tcp, ok := proxy.TCP(w.c.nc)
	if ok && w.framed && w.length >= 0 && !w.empty && w.typed {
		limited, file := r.(*io.LimitedReader)
		if file {
			_, file = limited.R.(*os.File)
		}
		if file && limited.N <= w.length-w.n {
			if err := w.flush(); err != nil {
				return 0, err
			}
			for limited.N > 0 {
				w.c.writeBy()
				piece := &io.LimitedReader{R: limited.R, N: min(limited.N, splicePiece)}
				m, err := tcp.ReadFrom(piece)
				n, w.n, limited.N = n+m, w.n+m, limited.N-m
				if err != nil {
					w.err = err
					w.c.left()
					return n, err
				}
				if piece.N > 0 {
					return n, nil
				}
			}
			return n, nil
		}
	}
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, *buf)
}

// splicePiece is how much is moved within the kernel before deadlines are moved on.
const splicePiece = 256 << 10

// finish ends the answer; true says that the connection can take another request.
func (w *answer) finish() bool {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	unread := w.body != nil && !w.body.rest()
	w.last = w.last || unread
	w.frame(true)
	if w.chunked {
		w.c.out = append(w.c.out, "0\r\n"...)
		w.c.out = append(w.trailers(w.c.out), "\r\n"...)
	}
	if w.flush() != nil {
		return false
	}
	switch {
	case !w.empty && w.length >= 0 && w.n != w.length:
		return false // the client sees it end too soon
	case w.last:
		w.lingers = unread || w.c.in.Buffered() > 0
		return false
	}
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return !w.c.barred
}

func (w *answer) trailers(out []byte) []byte {
	t := http.Header{}
	for name, values := range w.h {
		if late, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			t[http.CanonicalHeaderKey(late)] = values
		} else if slices.Contains(w.ends, name) {
			t[name] = values
		}
	}
	if len(t) == 0 {
		return out
	}
	return h1.AppendFields(out, t, nil)
}

// abort ends a connection in mid-answer. Where only its end would end the answer, it is reset: nothing else tells the client.
func (w *answer) abort() {
	if tcp, ok := proxy.TCP(w.c.nc); ok && (w.status == 0 || !w.left || !w.chunked && w.length < 0) {
		_ = tcp.SetLinger(0)
	}
}

// Hijack hands the connection over.
func (w *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hijacked {
		return nil, nil, http.ErrHijacked
	}
	w.c.unlook()
	w.hijacked = true
	w.c.e.leave(w.c)
	_ = w.c.nc.SetDeadline(time.Time{})
	early := bytes.Clone(w.c.in.Peeked())
	w.c.in.Drop()
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), w.c.nc), max(4<<10, len(early)))
	_, _ = r.Peek(len(early)) // buffered, as net/http has it; cannot fail
	return w.c.nc, bufio.NewReadWriter(r, bufio.NewWriter(w.c.nc)), nil
}

// SetReadDeadline bars the connection from another request.
func (w *answer) SetReadDeadline(t time.Time) error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.barred = true
	return w.c.nc.SetReadDeadline(t)
}

// EnableFullDuplex: it always is.
func (w *answer) EnableFullDuplex() error { return nil }
