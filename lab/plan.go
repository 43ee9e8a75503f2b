package lab

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"servent/lab/check"
	"servent/lab/host"
	"servent/lab/load"
	"servent/lab/result"
	"servent/system"
)

// plan is what a comparison is going to do, before anything runs.
type plan struct {
	variants []Variant // those that run
	refused  []Variant
	service  system.ServiceName
	base     *system.System // of the first variant: groups of nodes and the comparison's words
	depth    result.Depth
	nodes    []int
	repeats  int
	samples  int     // full: requests that a rate is judged by
	slow     float64 // by which emulated time is stretched; see pace
	goal     result.Goal
	seed     uint64

	mix       []load.Entry // of HTTP
	tcp       *load.TCP    // of TCP
	keys      load.Keys
	preload   bool
	from      map[system.Site]float64
	resolvers int // caches of names at each site, of what is switched by name
	per       int // closed loop: clients a worker
	checks    check.Kind
	looks     check.Options // of checkers
}

const (
	defaultKeys      = 1000
	defaultResolvers = 8
	perWorker        = 4 // clients: three wait while one is served, so that a worker is never without work
	nodeMemory       = 60 << 20
)

func newPlan(o Options) (*plan, error) {
	p := &plan{service: o.Service, depth: cmp.Or(o.Depth, result.Quick), repeats: o.Repeats, samples: o.Samples, slow: cmp.Or(o.Slow, 1), seed: o.Seed, nodes: o.Nodes, per: perWorker}
	if !(p.slow >= 1 && p.slow <= mostSlow) {
		return nil, fmt.Errorf("slow: want 1 to %d, have %v", mostSlow, p.slow)
	}
	for _, v := range o.Variants {
		switch {
		case v.System == nil:
			p.refused = append(p.refused, v)
		case v.System.Service(o.Service) == nil:
			return nil, fmt.Errorf("variant %s has no service %s", v.Name, o.Service)
		case len(p.variants) > 0 && unlike(p.variants[0], v) != "":
			v.Refused = unlike(p.variants[0], v)
			p.refused = append(p.refused, v)
		case len(p.variants) > 0 && foreign(p.variants[0], v, o.Service) != "":
			v.Refused = foreign(p.variants[0], v, o.Service)
			p.refused = append(p.refused, v)
		default:
			p.variants = append(p.variants, v)
		}
	}
	if len(p.variants) == 0 {
		why := []string{"no variant can be run"}
		for _, v := range p.refused {
			why = append(why, v.Name+": "+v.Refused)
		}
		return nil, &system.Hint{Err: errors.New(strings.Join(why, "; ")), Next: "servent validate"}
	}
	p.base = p.variants[0].System
	if p.nodes == nil {
		p.nodes = p.defaultNodes()
	}
	slices.Sort(p.nodes)
	p.nodes = slices.Compact(p.nodes)
	if p.nodes[0] < 1 || p.nodes[len(p.nodes)-1] > 64 {
		return nil, fmt.Errorf("numbers of nodes: want 1 to 64, have %d to %d", p.nodes[0], p.nodes[len(p.nodes)-1])
	}
	if err := p.fits(); err != nil {
		return nil, err
	}
	var err error
	if p.goal, err = goal(p.base.Compare); err != nil {
		return nil, err
	}
	if p.depth == result.Full && p.goal.Default {
		p.goal.Percentile = 99
	}
	return p, p.readLoad()
}

// defaultNodes are 1, 2 and 4; for a full comparison as far to 32 as the machine has memory for.
func (p *plan) defaultNodes() []int {
	if p.depth != result.Full {
		return []int{1, 2, 4}
	}
	all := []int{1, 2, 4, 8, 16, 32}
	free := host.FreeMemory()
	for len(all) > 1 && free > 0 && p.need(all[len(all)-1]) >= free {
		all = all[:len(all)-1]
	}
	return all
}

// need is about the memory of all variants side by side on so many nodes, in bytes.
func (p *plan) need(nodes int) int64 { return int64(nodes*len(p.variants)) * nodeMemory }

// fits says whether the machine has the memory for all variants side by side.
func (p *plan) fits() error {
	free, most := host.FreeMemory(), p.nodes[len(p.nodes)-1]
	need := p.need(most)
	if free == 0 || need < free {
		return nil
	}
	can := int(free / nodeMemory / int64(len(p.variants)))
	return &system.Hint{Err: fmt.Errorf("%d variants on %d nodes each take about %d MiB; %d MiB are free", len(p.variants), most, need>>20, free>>20),
		Next: fmt.Sprintf("servent compare --nodes 1..%d   (or fewer variants)", max(1, can))}
}

// readLoad reads the file's load, or finds one that suits the service.
func (p *plan) readLoad() error {
	c := p.base.Compare
	if c == nil {
		c = &system.Compare{}
	}
	svc := p.base.Service(p.service)
	p.keys = load.Keys{Kind: "uniform", N: defaultKeys}
	var err error
	if c.Load.Keys != "" {
		if p.keys, err = load.ParseKeys(c.Load.Keys); err != nil {
			return err
		}
	}
	p.preload = c.Load.Preload
	for site, share := range c.Load.From {
		if p.from == nil {
			p.from = map[system.Site]float64{}
		}
		p.from[system.Site(site)] = share
	}
	p.resolvers = cmp.Or(c.Load.Resolvers, defaultResolvers)
	unsaid := svc.Switch.By == system.ByConnection && len(c.Load.Mix) == 0 && !slices.ContainsFunc(p.variants, func(v Variant) bool {
		return v.System.Service(p.service).Switch.By == system.ByRequest
	})
	if unsaid || overTCP(p.base, p.service) {
		return p.overTCP(c)
	}
	if p.mix, err = load.MixOf(c.Load.Mix); err != nil {
		return err
	}
	if len(p.mix) == 0 {
		p.mix = []load.Entry{{Method: "GET", Path: requestPath(svc), Weight: 1}}
	}
	p.choose(c)
	for i := range p.mix { // a key that nobody has written yet is no error
		if p.checks == check.KV && p.mix[i].Method != "PUT" && p.mix[i].Method != "POST" {
			p.mix[i].Accept = []int{404}
		}
	}
	return nil
}

// overTCP is the load of a service that is switched by connection.
func (p *plan) overTCP(c *system.Compare) error {
	if c.Load.Send == "" {
		return &system.Hint{Err: fmt.Errorf("%s is switched by %s: what a client sends must stand in the file", p.service, p.base.Service(p.service).Switch.By),
			Next: `add to x-servent.compare.load: send: "41\n", expect: line   (or for HTTP: mix: {GET /: 1})`}
	}
	expect, err := load.ParseExpect(cmp.Or(c.Load.Expect, "line"))
	if err != nil {
		return err
	}
	send, err := load.ParseSend(c.Load.Send)
	if err != nil {
		return fmt.Errorf("load: send: %w", err)
	}
	p.tcp = &load.TCP{Send: send, Expect: expect}
	p.choose(c)
	return nil
}

// choose finds the checker of the answers.
func (p *plan) choose(c *system.Compare) {
	switch {
	case c.Check != "" && c.Check != "auto":
		p.checks = check.Kind(c.Check)
	case p.tcp != nil:
		p.checks, p.looks.Why = check.Hash, ""
		if p.keyed() || strings.Contains(p.tcp.Send, "{n}") || strings.Contains(p.tcp.Send, "{value}") {
			p.checks, p.looks.Why = check.None, "every request differs, and what its answer should be is not known"
		}
	default:
		var mix []system.MixEntry
		for _, e := range p.mix {
			mix = append(mix, system.MixEntry{Request: e.Method + " " + e.Path, Weight: e.Weight})
		}
		found := check.Auto(mix)
		p.checks, p.looks = found.Kind, found.Options()
	}
}

// requestPath is a path that the service answers, as far as the file tells.
func requestPath(s *system.Service) string {
	if strings.HasPrefix(s.Key, "/") {
		return strings.TrimSuffix(s.Key, "/*")
	}
	if len(s.Routes) > 0 {
		return strings.TrimSuffix(s.Routes[0].Path, "*")
	}
	return "/"
}

// words says what the load is.
func (p *plan) words() string {
	w := fmt.Sprintf("closed loop, %d clients a worker", p.per)
	if p.depth == result.Full {
		w = "open loop, Poisson arrivals"
	}
	if slices.ContainsFunc(p.variants, func(v Variant) bool { return v.System.Service(p.service).Switch.By == system.ByName }) {
		w += fmt.Sprintf(", names through %s", some(p.resolvers, "caching resolver"))
	}
	if p.tcp != nil {
		return w + "; " + p.tcp.String()
	}
	total := 0.0
	for _, e := range p.mix {
		total += e.Weight
	}
	for _, e := range p.mix {
		w += "; "
		if len(p.mix) > 1 {
			w += fmt.Sprintf("%.3g %% ", 100*e.Weight/total)
		}
		w += e.Method + " " + e.Path
	}
	if p.keyed() {
		w += "; keys: " + p.keys.String()
	}
	return w
}

// keyed says that some request has a key.
func (p *plan) keyed() bool {
	if p.tcp != nil {
		return strings.Contains(p.tcp.Send, "{key}")
	}
	return slices.ContainsFunc(p.mix, func(e load.Entry) bool {
		return strings.Contains(e.Path+e.Body+strings.Join(e.Headers, ""), "{key}")
	})
}
