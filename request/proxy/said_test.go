package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// binaryHeader is one of version 2.
func binaryHeader(command, family byte, body string) string {
	return signature + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

const v4 = "\xc0\x00\x02\x07\xc6\x33\x64\x01\xc7\xa7\x01\xbb" // 192.0.2.7:51111 to 198.51.100.1:443

func TestSaid(t *testing.T) {
	six := strings.Repeat("\x20\x01\x0d\xb8", 8) + "\x00\x01\x00\x02"
	for text, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 198.51.100.1 51111 443\r\n": "192.0.2.7:51111 198.51.100.1:443",
		"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n":  "[2001:db8::7]:1 [2001:db8::1]:65535",
		"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n": "192.0.2.7:1 [2001:db8::1]:2",
		"PROXY UNKNOWN\r\n":                                         "own",
		"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n":                     "own",
		binaryHeader(0x21, 0x11, v4):                                "192.0.2.7:51111 198.51.100.1:443",
		binaryHeader(0x21, 0x11, v4+"\x03\x00\x04abcd\x04\x00\x00"): "192.0.2.7:51111 198.51.100.1:443", // with more to say
		binaryHeader(0x21, 0x21, six):                               "[2001:db8:2001:db8:2001:db8:2001:db8]:1 [2001:db8:2001:db8:2001:db8:2001:db8]:2",
		binaryHeader(0x20, 0x00, ""):                                "own",
		binaryHeader(0x20, 0x11, v4):                                "own",
		binaryHeader(0x21, 0x00, "abc"):                             "own",

		"PROXY TCP4 192.0.2.7 198.51.100.1 51111 443\n":         "",
		"PROXY TCP4 192.0.2.7 198.51.100.1 51111\r\n":           "",
		"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n":       "",
		"PROXY TCP4 192.0.2.7 198.51.100.1 051 443\r\n":         "",
		"PROXY TCP4 192.0.2.7  198.51.100.1 1 443\r\n":          "",
		"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n":            "",
		"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n":             "",
		"PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n":            "",
		"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n":               "",
		"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n":             "",
		"PROXY " + strings.Repeat("x", 200) + "\r\n":            "",
		"PROXY\tTCP4 192.0.2.7 198.51.100.1 1 2\r\n":            "",
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                     "",
		binaryHeader(0x22, 0x11, v4):                            "", // no such command
		binaryHeader(0x11, 0x11, v4):                            "", // no such version
		binaryHeader(0x21, 0x11, v4[:11]):                       "",
		binaryHeader(0x21, 0x12, v4):                            "", // datagrams
		binaryHeader(0x21, 0x31, strings.Repeat("/", 216)):      "", // sockets in a folder
		binaryHeader(0x21, 0x11, v4+strings.Repeat("x", 5<<10)): "", // too much to say
	} {
		r := strings.NewReader(text + "after")
		client, door, err := Said(iotest.OneByteReader(r))
		got := ""
		switch {
		case err == nil && !client.IsValid():
			got = "own"
		case err == nil:
			got = fmt.Sprint(client, " ", door)
		case !errors.Is(err, ErrUnsaid):
			t.Errorf("%.40q: %v, want ErrUnsaid", text, err)
		}
		if got != want {
			t.Errorf("%.60q says %q (%v), want %q", text, got, err, want)
		}
		if rest, _ := io.ReadAll(r); err == nil && string(rest) != "after" {
			t.Errorf("%.40q: %q is left, want what comes after", text, rest)
		}
		if want == "" || want == "own" {
			continue
		}
		for cut := range len(text) {
			if _, _, err := Said(strings.NewReader(text[:cut])); !errors.Is(err, ErrUnsaid) {
				t.Errorf("%.40q cut after %d bytes: %v", text, cut, err)
			}
		}
	}
}

// TestSay: what is said is heard.
func TestSay(t *testing.T) {
	for _, ends := range [][2]string{{"192.0.2.7:51111", "198.51.100.1:443"}, {"[2001:db8::7]:1", "[2001:db8::1]:65535"}, {"192.0.2.7:1", "[2001:db8::1]:2"}, {"[::ffff:192.0.2.7]:1", "198.51.100.1:2"}, {"[fe80::1%eth0]:1", "[fe80::2%eth0]:2"}, {"", "198.51.100.1:2"}} {
		client, _ := netip.ParseAddrPort(ends[0])
		door, _ := netip.ParseAddrPort(ends[1])
		for _, second := range []bool{false, true} {
			r := bytes.NewReader(append(Say(second, client, door), "after"...))
			from, to, err := Said(r)
			rest, _ := io.ReadAll(r)
			if err != nil || string(rest) != "after" {
				t.Fatalf("%v, version 2 %v: %v, %q is left", ends, second, err, rest)
			}
			if !client.IsValid() {
				if from.IsValid() {
					t.Errorf("of an unknown client: %v", from)
				}
				continue
			}
			if want := client.Addr().Unmap().WithZone(""); from.Addr() != want || from.Port() != client.Port() || to.Port() != door.Port() || to.Addr() != door.Addr().Unmap().WithZone("") {
				t.Errorf("%v, version 2 %v: heard %v to %v", ends, second, from, to)
			}
		}
	}
}

func FuzzSaid(f *testing.F) {
	for _, text := range []string{"PROXY TCP4 192.0.2.7 198.51.100.1 51111 443\r\n", "PROXY UNKNOWN\r\n", binaryHeader(0x21, 0x11, v4), binaryHeader(0x20, 0, ""), "GET / HTTP/1.1\r\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := bytes.NewReader(text)
		client, door, err := Said(r)
		if err != nil && (!errors.Is(err, ErrUnsaid) || client.IsValid() || door.IsValid()) {
			t.Errorf("%q: %v, %v, %v", text, client, door, err)
		}
		if took := len(text) - r.Len(); took > 16+mostSaid {
			t.Errorf("it took %d bytes", took)
		}
	})
}

// TestBehind: who comes from a proxy that is named is its client; a proxy that says nothing is shut out, and does not hold up the others.
func TestBehind(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var named atomic.Pointer[[]netip.Prefix]
	named.Store(&[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	ln := Behind(raw, func() []netip.Prefix { return *named.Load() })
	dial := func(text string) net.Conn {
		c, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, text)
		return c
	}
	silent := dial("") // says nothing for now
	dial("PROXY TCP4 192.0.2.7 198.51.100.1 51111 443\r\nhello")
	c, err := ln.Accept()
	if err != nil || c.RemoteAddr().String() != "192.0.2.7:51111" || c.LocalAddr().String() != "198.51.100.1:443" {
		t.Fatalf("Accept = %v, %v", c, err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("it says %q, %v", b, err)
	}
	c.Close()
	bad := dial("GET / HTTP/1.1\r\n\r\n")
	_ = bad.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := bad.Read(b); err == nil || late(err) {
		t.Errorf("a proxy that says nothing of its client reads %v", err)
	}
	named.Store(new([]netip.Prefix)) // the next one is no proxy any more
	plain := dial("GET / HTTP/1.1\r\n\r\n")
	if c, err = ln.Accept(); err != nil || c.RemoteAddr().String() != plain.LocalAddr().String() {
		t.Errorf("of who is no proxy: %v, %v", c.RemoteAddr(), err)
	}
	c.Close()
	ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	silent.Close()
}

// late says that nothing came in time.
func late(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}
