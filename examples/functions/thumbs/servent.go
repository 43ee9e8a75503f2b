//go:build wasip1

// What a function in Go needs of Servent: requests for an http.Handler, and what the host does for it.
// Build it with GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared.

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"strconv"
	"strings"
	"unsafe"
)

//go:wasmimport servent log
func hostLog(level int32, text string)

//go:wasmimport servent call
func hostCall(message string) int32

//go:wasmimport servent take
func hostTake(at unsafe.Pointer, most int32) int32

//go:wasmimport servent kv_get
func kvGet(service, key string) int32

//go:wasmimport servent kv_put
func kvPut(service, key, value string) int32

//go:wasmimport servent kv_del
func kvDel(service, key string) int32

// handle answers one request: SCGI on standard input, a CGI response on standard output.
//
//go:wasmexport handle
func handle() {
	w := &answer{header: http.Header{}}
	if r, err := request(os.Stdin); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	} else {
		serve(w, r)
	}
	w.flush()
}

// main is not called: the module is a library.
func main() {}

// request reads one in SCGI: a netstring of CGI variables, and the body.
func request(from io.Reader) (*http.Request, error) {
	in := bufio.NewReader(from)
	size, err := in.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(size, ":"), 10, 20)
	if err != nil {
		return nil, err
	}
	head := make([]byte, n+1) // and the comma
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	words, vars := strings.Split(string(head[:n]), "\x00"), map[string]string{}
	for i := 0; i+1 < len(words); i += 2 {
		vars[words[i]] = words[i+1]
	}
	r, err := cgi.RequestFromMap(vars)
	if err == nil {
		r.Body = io.NopCloser(io.LimitReader(in, r.ContentLength))
	}
	return r, err
}

// answer is the response under way.
type answer struct {
	header http.Header
	out    *bufio.Writer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.out != nil {
		return
	}
	a.out = bufio.NewWriterSize(os.Stdout, 64<<10)
	fmt.Fprintf(a.out, "Status: %d %s\r\n", status, http.StatusText(status))
	if a.header.Get("Content-Type") == "" {
		a.header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	a.header.Write(a.out)
	a.out.WriteString("\r\n")
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.out.Write(p)
}

func (a *answer) flush() {
	a.WriteHeader(http.StatusOK)
	a.out.Flush()
}

// logf writes a line to the service's log.
func logf(format string, args ...any) { hostLog(1, fmt.Sprintf(format, args...)) }

// taken reads what a host call has left: an answer, or why there is none.
func taken(code int32) ([]byte, error) {
	var all bytes.Buffer
	piece := make([]byte, 32<<10)
	for {
		n := hostTake(unsafe.Pointer(&piece[0]), int32(len(piece)))
		if n <= 0 {
			break
		}
		all.Write(piece[:n])
	}
	switch {
	case code == -4:
		return nil, errAbsent
	case code < 0:
		return nil, errors.New(all.String())
	}
	return all.Bytes(), nil
}

// services calls those that depends_on names: http.Client{Transport: services{}}.Get("http://SERVICE/…").
type services struct{}

// RoundTrip implements [http.RoundTripper].
func (services) RoundTrip(r *http.Request) (*http.Response, error) {
	var b bytes.Buffer
	if err := r.WriteProxy(&b); err != nil {
		return nil, err
	}
	got, err := taken(hostCall(b.String()))
	if err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(bytes.NewReader(got)), r)
}

var errAbsent = errors.New("no such key")

// database is a service with builtin: kv that depends_on names.
type database string

func (d database) get(key string) ([]byte, error) { return taken(kvGet(string(d), key)) }

func (d database) put(key string, value []byte) error {
	_, err := taken(kvPut(string(d), key, string(value)))
	return err
}

func (d database) del(key string) error {
	_, err := taken(kvDel(string(d), key))
	return err
}
