package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Resolver is a caching resolver as machines, companies and providers have one: it asks a name server where a service is, and
// gives everyone who asks within the answer's TTL the same. It is a model of what resolvers do to switching by name: one name,
// no other zone, and of the answer the first record alone, as a client has it that looks up an address.
type Resolver struct {
	Name    string          // _api._tcp.shop.internal: looked up as SRV, which has the port, too
	Servers func() []string // host:port of name servers, asked in turn until one answers
	First   int             // which of them is asked first

	mu    sync.Mutex // guards what follows; held while it asks: others wait for the same answer
	have  string     // host:port
	until time.Time
	asked int64
}

// try is how long a name server is waited for before the next one is asked.
const try = time.Second

// ErrNowhere: the name servers know nobody who has the service.
var ErrNowhere = errors.New("the name server knows no instance")

// Lookup returns where the service is, host:port, asking only when nothing is kept.
func (r *Resolver) Lookup(ctx context.Context) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Now().Before(r.until) {
		if r.have == "" {
			return "", ErrNowhere
		}
		return r.have, nil
	}
	servers := r.Servers()
	err := errors.New("there is no name server")
	for i := range servers {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		r.asked++
		var ttl time.Duration
		if r.have, ttl, err = locate(ctx, servers[(r.First+i)%len(servers)], r.Name); err == nil || errors.Is(err, ErrNowhere) {
			r.until = time.Now().Add(ttl)
			return r.have, err
		}
	}
	return "", fmt.Errorf("look %s up: %w", r.Name, err)
}

// Asked is how often a name server was asked.
func (r *Resolver) Asked() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// locate asks one name server, over UDP and, when the answer is cut, over TCP (RFC 7766 §5).
func locate(ctx context.Context, server, name string) (at string, ttl time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, try)
	defer cancel()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), dns.TypeSRV)
	q.RecursionDesired = false
	q.SetEdns0(Payload, false)
	c := &dns.Client{UDPSize: Payload}
	m, _, err := c.ExchangeContext(ctx, q, server)
	if err == nil && m.Truncated {
		c.Net = "tcp"
		m, _, err = c.ExchangeContext(ctx, q, server)
	}
	switch {
	case err != nil:
		return "", 0, err
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return "", 0, fmt.Errorf("%s answers %s", server, dns.RcodeToString[m.Rcode])
	}
	for _, rr := range m.Answer {
		srv, ok := rr.(*dns.SRV)
		if !ok {
			continue
		}
		for _, extra := range m.Extra {
			var ip net.IP
			switch a := extra.(type) {
			case *dns.A:
				ip = a.A
			case *dns.AAAA:
				ip = a.AAAA
			}
			if ip != nil && dns.CanonicalName(extra.Header().Name) == dns.CanonicalName(srv.Target) {
				return net.JoinHostPort(ip.String(), strconv.Itoa(int(srv.Port))), time.Duration(srv.Hdr.Ttl) * time.Second, nil
			}
		}
	}
	for _, rr := range m.Ns { // RFC 2308 §5: how long that holds
		if soa, ok := rr.(*dns.SOA); ok {
			ttl = time.Duration(min(soa.Minttl, soa.Hdr.Ttl)) * time.Second
		}
	}
	return "", ttl, ErrNowhere
}
