package certificate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/control"
	"servent/identity"
	"servent/system"
)

// Places begin so.
const (
	placeOwn  = "own"
	placeFile = "file"
	placeACME = "acme"
)

func challengePlace(host string) string { return "challenge/" + host }

const (
	lookEvery = time.Minute // at the clock
	shortest  = time.Minute // between two tries, which doubles up to
	longest   = 6 * time.Hour
	renewAt   = 3 // a certificate is renewed when a third of its life is left
)

// Options of an [Issuer]. All up to Addresses must be set.
type Options struct {
	Cluster   control.Cluster
	View      func() *control.View
	Changed   func() <-chan struct{}              // closed at the next view
	Secret    identity.Secret                     // seals keys: that of every [Shelf]
	Dir       string                              // of the authority's and the account's key
	Blob      func(system.Digest) ([]byte, error) // a pair of the user's
	Addresses func(*system.Web) []string          // of this machine, which its users may come to
	Settle    time.Duration                       // until nodes show a challenge; 0 means 2s
	Log       *slog.Logger                        // nil discards
	Now       func() time.Time                    // nil: time.Now
}

// Issuer keeps a certificate in control for every name that the system wants one for. There is one in a system.
type Issuer struct {
	o    Options
	box  box
	own  *tls.Certificate // the system's own authority; nil: not read yet
	done control.Rev      // of the last change that was made here
}

// NewIssuer makes one; [Issuer.Run] begins its work.
func NewIssuer(o Options) (*Issuer, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Settle == 0 {
		o.Settle = 2 * time.Second
	}
	b, err := newBox(o.Secret)
	return &Issuer{o: o, box: b}, err
}

// Run issues and renews until ctx ends.
func (s *Issuer) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		changed := s.o.Changed()
		if v := s.o.View(); v != nil && v.Wanted != nil && v.Rev >= s.done {
			s.tend(ctx, v)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

// wish is a certificate that there should be.
type wish struct {
	place string
	hosts []string // nil: as the pair says
	from  string   // what it is made by: when that changes it is made anew
	pair  *system.Pair
	acme  *system.ACME
}

// wishes of a system, in the order in which they are granted: none that waits for somebody outside goes before one that does not.
func (s *Issuer) wishes(sys *system.System) (all []wish) {
	if !sys.Secure() {
		return nil
	}
	own := sha256.Sum256(s.own.Certificate[0])
	web := cmp.Or(sys.Web, &system.Web{})
	for i := range web.Certificates {
		p := &web.Certificates[i]
		all = append(all, wish{place: placeFile + "/" + strconv.Itoa(i+1), from: string(p.Digest), pair: p})
	}
	hosts := append([]string{"localhost", "127.0.0.1", "::1"}, sys.Hosts(func(system.Route) bool { return true })...)
	hosts = append(hosts, s.o.Addresses(web)...)
	slices.Sort(hosts)
	all = append(all, wish{place: placeOwn, hosts: slices.Compact(hosts), from: hex.EncodeToString(own[:8])})
	if web.ACME != nil {
		for _, h := range sys.Hosts(system.Route.Certifiable) {
			all = append(all, wish{place: placeACME + "/" + h, hosts: []string{h}, from: web.ACME.Directory, acme: web.ACME})
		}
	}
	return all
}

// tend makes control have what the view's system wishes.
func (s *Issuer) tend(ctx context.Context, v *control.View) {
	if !v.Wanted.Secure() && len(v.Certificates) == 0 {
		return
	}
	if s.own == nil {
		var err error
		if s.own, err = authority(s.o.Dir, v.Wanted.Name, s.o.Now()); err != nil {
			s.o.Log.Error("the system's own authority", "err", err)
			return
		}
	}
	covered, stays := map[string]bool{}, map[string]bool{} // hosts that the user certifies himself; places
	for _, w := range s.wishes(v.Wanted) {
		i := slices.IndexFunc(v.Certificates, func(c system.Certified) bool { return c.Name == w.place })
		stood := system.Certified{Name: w.place}
		if i >= 0 {
			stood = v.Certificates[i]
		}
		if w.acme != nil && covered[w.hosts[0]] {
			continue
		}
		stays[w.place] = true
		if s.due(w, stood) {
			if stood = s.grant(ctx, w, stood); ctx.Err() != nil {
				return
			}
			if stood.Failed != "" {
				s.o.Log.Warn("no new certificate", "certificate", w.place, "again", stood.Again, "err", stood.Failed)
			} else {
				s.o.Log.Info("certificate", "certificate", w.place, "for", stood.Hosts, "by", stood.Issuer, "until", stood.Until)
			}
			rev, err := s.o.Cluster.Certify(ctx, stood)
			if err != nil {
				s.o.Log.Warn("keep a certificate", "certificate", w.place, "err", err)
				return
			}
			s.done = max(s.done, rev)
		}
		if w.pair != nil {
			for _, h := range stood.Hosts {
				covered[h] = true
			}
		}
	}
	for _, c := range v.Certificates {
		if stays[c.Name] {
			continue
		}
		rev, err := s.o.Cluster.Uncertify(ctx, c.Name)
		if err != nil {
			s.o.Log.Warn("remove a certificate", "certificate", c.Name, "err", err)
		}
		s.done = max(s.done, rev)
	}
}

// due says that a certificate is to be made, or made anew, now.
func (s *Issuer) due(w wish, stood system.Certified) bool {
	now := s.o.Now()
	switch {
	case stood.From != w.from || w.hosts != nil && !slices.Equal(stood.Hosts, w.hosts):
		return true
	case stood.Failed != "":
		return !now.Before(stood.Again)
	case w.pair != nil: // it ends when it ends
		return len(stood.Sealed) == 0
	}
	return len(stood.Sealed) == 0 || stood.Until.Sub(now) < stood.Until.Sub(stood.Since)/renewAt
}

// grant makes one. What stood stays when that fails.
func (s *Issuer) grant(ctx context.Context, w wish, stood system.Certified) system.Certified {
	c, err := s.make(ctx, w)
	now := s.o.Now().UTC()
	if err == nil {
		var text []byte
		if text, err = pemOf(c); err == nil {
			hosts := w.hosts
			if hosts == nil {
				hosts = slices.Clone(c.Leaf.DNSNames)
				for _, ip := range c.Leaf.IPAddresses {
					hosts = append(hosts, ip.String())
				}
			}
			return system.Certified{Name: w.place, Hosts: hosts, From: w.from, Issuer: cmp.Or(c.Leaf.Issuer.CommonName, strings.Join(c.Leaf.Issuer.Organization, " ")),
				Since: c.Leaf.NotBefore.UTC(), Until: c.Leaf.NotAfter.UTC(), Sealed: s.box.seal(w.place, text)}
		}
	}
	pause := shortest
	if stood.Failed != "" && stood.From == w.from {
		pause = min(2*max(stood.Pause, shortest), longest)
	}
	if stood.From != w.from {
		stood.Sealed = nil // another's
	}
	stood.Hosts, stood.From, stood.Failed, stood.Pause, stood.Again = w.hosts, w.from, err.Error(), pause, now.Add(pause)
	return stood
}

func (s *Issuer) make(ctx context.Context, w wish) (*tls.Certificate, error) {
	switch {
	case w.pair != nil:
		text, err := s.o.Blob(w.pair.Digest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.pair.Pos, err)
		}
		return Parse(text)
	case w.acme != nil:
		return s.ask(ctx, w.acme, w.hosts[0])
	}
	return issue(s.own, w.hosts, s.o.Now())
}

// Addresses are those of this machine that the web door is published at, for [Options].
func Addresses(web *system.Web) (all []string) {
	host, _, err := net.SplitHostPort(web.HTTPS)
	ip := net.ParseIP(host)
	switch {
	case err != nil || ip == nil:
		return nil
	case !ip.IsUnspecified():
		return []string{ip.String()}
	}
	ways, _ := net.InterfaceAddrs() // none: it goes by names
	for _, a := range ways {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() && len(all) < 16 {
			all = append(all, n.IP.String())
		}
	}
	return all
}
