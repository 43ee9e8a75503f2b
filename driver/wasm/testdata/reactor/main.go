//go:build wasip1

// The reactor of the tests: it remembers, and asks other services.
package main

import (
	"bufio"
	"bytes"
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
func hostLog(level int32, at unsafe.Pointer, n int32)

//go:wasmimport servent call
func hostCall(at unsafe.Pointer, n int32) int32

//go:wasmimport servent take
func hostTake(at unsafe.Pointer, n int32) int32

//go:wasmimport servent kv_get
func kvGet(service unsafe.Pointer, sn int32, key unsafe.Pointer, kn int32) int32

//go:wasmimport servent kv_put
func kvPut(service unsafe.Pointer, sn int32, key unsafe.Pointer, kn int32, value unsafe.Pointer, vn int32) int32

//go:wasmimport servent kv_del
func kvDel(service unsafe.Pointer, sn int32, key unsafe.Pointer, kn int32) int32

func main() {}

var (
	count int
	kept  [][]byte
)

//go:wasmexport handle
func handle() {
	r, err := request()
	if err != nil {
		fmt.Printf("Status: 400 Bad Request\n\n%v\n", err)
		return
	}
	count++
	switch r.URL.Path {
	case "/panic":
		panic("as asked")
	case "/loop":
		for {
		}
	case "/grow":
		for {
			kept = append(kept, bytes.Repeat([]byte{1}, 1<<20))
		}
	case "/call":
		call(r)
	case "/kv":
		database(r)
	default:
		body, _ := io.ReadAll(r.Body)
		text := "count " + strconv.Itoa(count)
		hostLog(1, unsafe.Pointer(unsafe.StringData(text)), int32(len(text)))
		fmt.Printf("Content-Type: text/plain\n\n%s %s %s %s %s n=%d body=%s\n", r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("X-User"), os.Getenv("GREETING"), count, body)
	}
}

// call asks what the query says and gives the answer on.
func call(r *http.Request) {
	ask, err := http.NewRequest(r.Method, r.URL.Query().Get("url"), r.Body)
	if err != nil {
		panic(err)
	}
	if r.ContentLength > 0 {
		ask.ContentLength = r.ContentLength
	}
	var b bytes.Buffer
	if err := ask.WriteProxy(&b); err != nil {
		panic(err)
	}
	n := hostCall(unsafe.Pointer(&b.Bytes()[0]), int32(b.Len()))
	got := taken()
	if n < 0 {
		fmt.Printf("Status: 500 Failed\n\n%d %s", n, got)
		return
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(got)), ask)
	if err != nil {
		panic(err)
	}
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("Status: %d From\nX-From: %s\n\n%s", resp.StatusCode, resp.Header.Get("X-From"), body)
}

func database(r *http.Request) {
	s, k := []byte(r.URL.Query().Get("db")), []byte(r.URL.Query().Get("key"))
	var n int32
	switch r.Method {
	case "GET":
		n = kvGet(unsafe.Pointer(&s[0]), int32(len(s)), unsafe.Pointer(&k[0]), int32(len(k)))
	case "PUT":
		v, _ := io.ReadAll(r.Body)
		n = kvPut(unsafe.Pointer(&s[0]), int32(len(s)), unsafe.Pointer(&k[0]), int32(len(k)), unsafe.Pointer(unsafe.SliceData(v)), int32(len(v)))
	case "DELETE":
		n = kvDel(unsafe.Pointer(&s[0]), int32(len(s)), unsafe.Pointer(&k[0]), int32(len(k)))
	}
	fmt.Printf("Content-Type: text/plain\n\n%d %s", n, taken())
}

func taken() []byte {
	var all []byte
	piece := make([]byte, 1000)
	for {
		n := hostTake(unsafe.Pointer(&piece[0]), int32(len(piece)))
		if n <= 0 {
			return all
		}
		all = append(all, piece[:n]...)
	}
}

// request reads an SCGI request.
func request() (*http.Request, error) {
	in := bufio.NewReader(os.Stdin)
	size, err := in.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(size, ":"))
	if err != nil {
		return nil, err
	}
	head := make([]byte, n+1)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	words := strings.Split(string(head[:n]), "\x00")
	vars := map[string]string{}
	for i := 0; i+1 < len(words); i += 2 {
		vars[words[i]] = words[i+1]
	}
	r, err := cgi.RequestFromMap(vars)
	if err == nil {
		r.Body = io.NopCloser(io.LimitReader(in, r.ContentLength))
	}
	return r, err
}
