package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"servent/identity"
)

func key(t testing.TB, secret string) Key {
	t.Helper()
	k, err := NewKey(identity.Secret(secret))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var four = Header{netip.MustParseAddrPort("192.0.2.7:51111"), netip.MustParseAddrPort("198.51.100.1:443"), "shop"}

func TestHeader(t *testing.T) {
	k := key(t, "ours")
	for _, h := range []Header{four, {netip.MustParseAddrPort("[2001:db8::7]:1"), netip.MustParseAddrPort("[2001:db8::1]:65535"), ""},
		{netip.MustParseAddrPort("192.0.2.7:1"), netip.MustParseAddrPort("[2001:db8::1]:2"), strings.Repeat("s", 200)}} {
		b := k.Append([]byte("before"), h)
		r := bytes.NewReader(append(b[len("before"):], "after"...))
		got, err := k.Read(iotest.OneByteReader(r))
		rest, _ := io.ReadAll(r)
		if err != nil || got != h || string(rest) != "after" {
			t.Errorf("%v came as %v, %v, and %q after it", h, got, err, rest)
		}
	}
}

// A header that another made, or that was changed or cut in any place, says nothing.
func TestForeignHeaders(t *testing.T) {
	k := key(t, "ours")
	good := k.Append(nil, four)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if h, err := k.Read(bytes.NewReader(bad)); err == nil {
			t.Errorf("with byte %d changed it says %v", i, h)
		}
		if h, err := k.Read(bytes.NewReader(good[:i])); err == nil || errors.Is(err, ErrForeign) {
			t.Errorf("cut after %d bytes it says %v, %v", i, h, err)
		}
	}
	for name, text := range map[string]string{
		"another's":       string(key(t, "another").Append(nil, four)),
		"version 1":       "PROXY TCP4 192.0.2.7 198.51.100.1 51111 443\r\n",
		"unsigned":        "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02",
		"local":           "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00",
		"too long":        "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + strings.Repeat("x", 1<<16),
		"no header":       "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"unix sockets":    "\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("x", 0xd8),
		"length in front": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x13" + strings.Repeat("\xe0\xff", 20),
	} {
		if h, err := k.Read(strings.NewReader(text)); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v, %v; want ErrForeign", name, h, err)
		}
	}
}

// HAProxy's own words for the same addresses: all but our two fields is the standard's.
func TestHeaderIsTheStandards(t *testing.T) {
	b := key(t, "ours").Append(nil, four)
	const want = "\r\n\r\n\x00\r\nQUIT\n\x21\x11" + "\x00\x26" + "\xc0\x00\x02\x07" + "\xc6\x33\x64\x01" + "\xc7\xa7" + "\x01\xbb" + "\xe0\x00\x04shop" + "\xe1\x00\x10"
	if got := string(b[:len(b)-macSize]); got != want {
		t.Errorf("written as\n%q, want\n%q", got, want)
	}
}

// inlet serves one on loopback.
func inlet(t *testing.T) (in *Inlet, dial func(h *Header, k Key) *net.TCPConn) {
	t.Helper()
	in = NewInlet(key(t, "ours"), slog.New(slog.DiscardHandler))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- in.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve() = %v", err)
		}
	})
	return in, func(h *Header, k Key) *net.TCPConn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if h != nil {
			_, _ = c.Write(k.Append(nil, *h))
		}
		return c.(*net.TCPConn)
	}
}

func TestInlet(t *testing.T) {
	in, dial := inlet(t)
	ours := key(t, "ours")
	early := dial(&four, ours) // before there is a door
	door := in.Door("shop", &net.TCPAddr{})
	for range 2 {
		c, err := door.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if c.RemoteAddr().String() != "192.0.2.7:51111" || c.LocalAddr().String() != "198.51.100.1:443" {
			t.Errorf("from %v to %v", c.RemoteAddr(), c.LocalAddr())
		}
		if tcp, ok := TCP(c); !ok || tcp == nil {
			t.Error("no socket")
		}
		_, _ = io.WriteString(early, "ping")
		buf := make([]byte, 4)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
			t.Errorf("%q, %v", buf, err)
		}
		c.Close()
		early = dial(&four, ours)
	}
	closed := func(c *net.TCPConn) error {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := c.Read(make([]byte, 1))
		return err
	}
	if err := closed(dial(&four, key(t, "another"))); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stranger: %v", err)
	}
	// What nobody took is reset when the door closes, and the next one of the service gets what comes later.
	waiting := dial(&four, ours)
	time.Sleep(20 * time.Millisecond) // it is in the door's queue, or about to be
	door.Close()
	next := in.Door("shop", &net.TCPAddr{})
	if _, err := door.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() of a closed door = %v", err)
	}
	dial(&four, ours)
	if c, err := next.Accept(); err != nil || c == nil {
		t.Errorf("the next door: %v", err)
	} else {
		c.Close()
	}
	_ = waiting
	dial(nil, nil) // says nothing: the end of the test does not wait for it
}

func FuzzRead(f *testing.F) {
	k := key(f, "ours")
	f.Add(k.Append(nil, four))
	f.Add([]byte(signature))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := k.Read(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, k.Append(nil, h)) && !(h.Client.Addr().Is4() && h.Door.Addr().Is4()) {
			t.Errorf("%q was read as %v", b, h)
		}
	})
}
