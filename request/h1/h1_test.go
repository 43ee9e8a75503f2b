package h1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

var requestSeeds = []string{
	"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	"GET http://x/a?b HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n",
	"POST /%2f HTTP/1.0\r\nContent-Length: 3\r\nConnection: Keep-Alive\r\n\r\n",
	"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\nTrailer: X-T, x-u\r\nExpect: 100-continue\r\n\r\n",
	"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: \r\nX-A:\t1 \r\nX-A: 2\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: x\r\n folded: 1\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\nTransfer-Encoding: chunked\r\n\r\n",
}

// What we take for a request, net/http takes for the same one.
func FuzzRequest(f *testing.F) {
	for _, s := range requestSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		head, err := NewReader(bytes.NewReader(data)).Head(false)
		one, oneErr := NewReader(iotest.OneByteReader(bytes.NewReader(data))).Head(false)
		if (err == nil) != (oneErr == nil) || !bytes.Equal(head, one) {
			t.Fatalf("at once %q, %v; byte by byte %q, %v", head, err, one, oneErr)
		}
		if err != nil {
			return
		}
		var ours http.Request
		if err := ParseRequest(head, &ours); err != nil {
			if wrong := (*Error)(nil); !errors.As(err, &wrong) || wrong.Status < 400 || wrong.Status > 505 {
				t.Fatalf("%v is no *Error with a status", err)
			}
			return
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", head, err)
		}
		theirs.Header.Del("Transfer-Encoding")
		theirs.Header.Del("Trailer") // kept where there are no chunks
		if _, ok := theirs.Header["Cache-Control"]; ok && ours.Header["Cache-Control"] == nil {
			theirs.Header.Del("Cache-Control") // it adds one to an old Pragma
		}
		theirs.Close = theirs.Close || ours.Close // we understand more words so
		if ours.Trailer != nil && len(ours.Trailer) == 0 {
			ours.Trailer = nil
		}
		type what struct {
			Method, URI, Proto, Host, URL string
			Header, Trailer               http.Header
			Length                        int64
			Close                         bool
		}
		digest := func(r *http.Request) what {
			return what{r.Method, r.RequestURI, r.Proto, r.Host, r.URL.String(), r.Header, r.Trailer, r.ContentLength, r.Close}
		}
		if got, want := digest(&ours), digest(theirs); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\nours   %+v\ntheirs %+v", head, got, want)
		}
	})
}

// What we take for an answer, net/http takes for the same one, body included.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200\nX: y\n\nuntil the end",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2;a=b\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
	} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, get bool) {
		method := http.MethodGet
		if !get {
			method = http.MethodHead
		}
		r := NewReader(bytes.NewReader(data))
		head, err := r.Head(true)
		if err != nil {
			return
		}
		var ours http.Response
		if err := ParseResponse(head, method, &ours); err != nil {
			return
		}
		length := ours.ContentLength
		if length < 0 && ours.TransferEncoding == nil {
			length = -2
		}
		var body []byte
		if ours.Body == nil {
			body, err = io.ReadAll(NewBody(r, length, ours.Trailer))
		}
		theirs, theirErr := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), &http.Request{Method: method})
		if theirErr != nil {
			t.Fatalf("net/http refuses %q: %v", data, theirErr)
		}
		if ours.StatusCode != theirs.StatusCode || ours.StatusCode >= 200 && length != -2 && ours.ContentLength != theirs.ContentLength {
			t.Fatalf("%q\nours %d, %d\ntheirs %d, %d", data, ours.StatusCode, ours.ContentLength, theirs.StatusCode, theirs.ContentLength)
		}
		if ours.StatusCode == http.StatusSwitchingProtocols {
			return
		}
		theirBody, theirErr := io.ReadAll(theirs.Body)
		if err == nil && (theirErr != nil && !spaced(data) || theirErr == nil && !bytes.Equal(body, theirBody)) {
			t.Fatalf("%q\nours %q\ntheirs %q, %v", data, body, theirBody, theirErr)
		}
	})
}

// spaced says that there may be space before a chunk's extension, which RFC 9112 §7.1.1 allows and net/http does not.
func spaced(data []byte) bool {
	return bytes.Contains(data, []byte(" ;")) || bytes.Contains(data, []byte("\t;"))
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

// Chunks are read alike however they arrive, and as net/http reads them.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{"0\r\n\r\n", "3\r\nabc\r\n0\r\nX-T: 1\r\n\r\nrest", "3;a=\"b\"\r\nabc\r\n00\r\n\r\n", "A\r\n0123456789\r\n1\r\na\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "ffffffffffffffff\r\n"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		read := func(src io.Reader, piece int) (got []byte, tr http.Header, left int, err error) {
			r, trailer := NewReader(src), http.Header{}
			b := NewBody(r, -1, trailer)
			whole := false
			waits := func(p []byte) (int, error) {
				if whole {
					t.Fatalf("%q was whole, and is waited for", data)
				}
				return src.Read(p)
			}
			r.src = reader(waits)
			for p := make([]byte, piece); err == nil; {
				var n int
				whole = whole || b.Whole()
				n, err = b.Read(p)
				got = append(got, p[:n]...)
			}
			return got, trailer, r.Buffered(), err
		}
		got, trailer, left, err := read(bytes.NewReader(data), 512)
		bits, trailer2, _, err2 := read(iotest.OneByteReader(bytes.NewReader(data)), int(step)+1)
		if !bytes.Equal(got, bits) || (err == io.EOF) != (err2 == io.EOF) || !reflect.DeepEqual(trailer, trailer2) {
			t.Fatalf("at once %q, %v, %v; in bits %q, %v, %v", got, trailer, err, bits, trailer2, err2)
		}
		if err != io.EOF || spaced(data) {
			return
		}
		rest := data[len(data)-min(left, len(data)):]
		src := bytes.NewReader(append([]byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"), data...))
		br := bufio.NewReader(src)
		r, err := http.ReadRequest(br)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(theirs, got) {
			t.Fatalf("ours %q; theirs %q, %v", got, theirs, err)
		}
		if after, _ := io.ReadAll(br); !bytes.HasSuffix(after, rest) || len(data) <= bufferSize && !bytes.Equal(after, rest) {
			t.Fatalf("%q: we leave %q, net/http leaves %q", data, rest, after)
		}
	})
}

// What is written is read as the same fields, and never as more.
func FuzzFields(f *testing.F) {
	f.Add("X-A", "1", "X-B", "a\r\nX-C: 1")
	f.Add("X A", " 1 ", "", "\x00")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		h := http.Header{n1: {v1}, n2: {v2, v1}}
		b := append(AppendFields(AppendRequestLine(nil, "GET", "/", "x"), h, nil), "\r\n"...)
		if n := bytes.Count(b, []byte("\n")); n > 6 {
			t.Fatalf("%d lines in %q", n, b)
		}
		head, err := NewReader(bytes.NewReader(b)).Head(false)
		if err != nil || len(head) != len(b) {
			t.Fatalf("%q of %q, %v", head, b, err)
		}
	})
}

func TestHeadBounds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		pad    int
		status int
	}{{"fits", MaxHead - 100, 0}, {"does not fit", MaxHead, 431}} {
		text := "GET / HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", tt.pad) + "\r\n\r\nrest"
		r := NewReader(iotest.HalfReader(strings.NewReader(text)))
		_, err := r.Head(false)
		var wrong *Error
		if got := errors.As(err, &wrong); got != (tt.status > 0) || got && wrong.Status != tt.status || !got && err != nil {
			t.Errorf("%s: %v, want status %d", tt.name, err, tt.status)
		}
		r.Drop()
	}
}

// Buffers come from a pool and go back as they came.
func TestBuffers(t *testing.T) {
	r := NewReader(strings.NewReader(strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1000)))
	n := 0
	for {
		head, err := r.Head(false)
		if err == io.EOF {
			break
		}
		if err != nil || string(head) != "GET / HTTP/1.1\r\nHost: x\r\n\r\n" {
			t.Fatalf("%d: %q, %v", n, head, err)
		}
		n++
	}
	if r.Release(); n != 1000 || r.buf != nil {
		t.Errorf("%d heads, buffer kept: %v", n, r.buf != nil)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	head := []byte("GET /api/items/17?full=1 HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n")
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		var r http.Request
		if err := ParseRequest(head, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleBody() {
	r := NewReader(strings.NewReader("5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\nnext"))
	trailer := http.Header{}
	text, err := io.ReadAll(NewBody(r, -1, trailer))
	fmt.Println(string(text), err, trailer, string(r.Peeked()))
	// Output: hello <nil> map[X-Sum:[5]] next
}
