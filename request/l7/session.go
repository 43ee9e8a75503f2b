package l7

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"

	"servent/route"
	"servent/system"
)

const (
	sessionLife  = 7 * 24 // hours that a cookie counts
	sessionRenew = 24     // hours after which a client gets a new one
	sessionSkew  = 1      // hours that clocks may differ
)

// session is the instance that a request's cookie names, and how old the cookie is.
type session struct {
	service system.ServiceName
	id      system.InstanceID // empty: there is no cookie that counts
	age     int64             // hours
}

// session returns the instance that the client stays with by its cookie, or "". Cookies that were not signed here,
// for another service, or too long ago do not count.
func (x *exchange) session(service system.ServiceName) system.InstanceID {
	if x.kept == nil || x.kept.service != service {
		x.kept = &session{service: service}
		now := hours(time.Now())
		for _, c := range x.in.CookiesNamed(route.CookieName(service)) {
			if id, made, ok := readSession(x.s.o.Secret, service, c.Value); ok && made <= now+sessionSkew && now-made < sessionLife {
				x.kept.id, x.kept.age = id, now-made
				break
			}
		}
	}
	return x.kept.id
}

// keep has the client stay with the instance that answers, if it does not yet.
func (x *exchange) keep(h http.Header, id system.InstanceID) {
	k := x.kept
	if k == nil || id == "" || k.id == id && k.age < sessionRenew {
		return
	}
	c := http.Cookie{Name: route.CookieName(k.service), Value: writeSession(x.s.o.Secret, k.service, id, hours(time.Now())),
		Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.in.TLS != nil}
	h.Add("Set-Cookie", c.String())
	h.Add("Cache-Control", `no-cache="set-cookie"`) // RFC 9111 §5.2.2.4: a cache must not hand it to others
}

func hours(t time.Time) int64 { return t.Unix() / 3600 }

// writeSession is a cookie's value: the instance's number, the hour, and a signature over both and the service.
func writeSession(secret []byte, service system.ServiceName, id system.InstanceID, made int64) string {
	_, n, err := id.Split()
	if err != nil {
		return ""
	}
	return strconv.Itoa(n) + "." + strconv.FormatInt(made, 10) + "." + base64.RawURLEncoding.EncodeToString(signSession(secret, service, n, made))
}

// readSession returns what a value that writeSession wrote says, and whether it did.
func readSession(secret []byte, service system.ServiceName, value string) (id system.InstanceID, made int64, ok bool) {
	parts := strings.Split(value, ".")
	if len(value) > 80 || len(parts) != 3 {
		return "", 0, false
	}
	n, err := strconv.Atoi(parts[0])
	made, err2 := strconv.ParseInt(parts[1], 10, 64)
	id = system.Instance(service, n)
	if err != nil || err2 != nil || !hmac.Equal([]byte(value), []byte(writeSession(secret, service, id, made))) {
		return "", 0, false
	}
	return id, made, true
}

// signSession is HMAC-SHA256 (RFC 2104), the first 128 bits. The numbers have a fixed length, so that no two
// triples have the same text.
func signSession(secret []byte, service system.ServiceName, n int, made int64) []byte {
	text := binary.BigEndian.AppendUint64(nil, uint64(n))
	text = binary.BigEndian.AppendUint64(text, uint64(made))
	h := hmac.New(sha256.New, secret)
	h.Write(append(text, service...)) // a hash takes every write
	return h.Sum(nil)[:16]
}
