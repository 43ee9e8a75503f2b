package study

import (
	"errors"
	"fmt"
	"math"

	"servent/overlay/graph"
	"servent/overlay/unstructured"
)

const (
	walkers = 16 // of a search, as the machine has it
	stride  = 4  // steps between a walker's questions
)

func (o *Options) graphDefaults() {
	if o.Holders <= 0 {
		o.Holders = 10
	}
	o.Holders = min(o.Holders, o.Nodes)
	if o.Search == unstructured.Widen && o.Far <= 0 {
		o.Far = 32
	}
	if o.Period <= 0 {
		o.Period = seconds(o.Graph.Usual)
	}
	if !o.Graph.Searches {
		o.Lookups = 0
	}
}

func checkGraph(o Options) error {
	switch {
	case o.Nodes < 5:
		return fmt.Errorf("%s: want 5 nodes or more, have %d", o.Graph.Name, o.Nodes)
	case o.Lattice && !o.Graph.Adopts:
		return fmt.Errorf("lattice: %s grows, it cannot begin with other neighbours", o.Graph.Name)
	case o.Attack && o.Kill == 0:
		return errors.New("attack: want a share of the nodes to kill")
	case o.Holders > o.Nodes:
		return fmt.Errorf("holders: want at most the %d nodes, have %d", o.Nodes, o.Holders)
	case o.Far < 0 || o.Far > 60_000:
		return fmt.Errorf("far: want 0 to 60000 links, have %d", o.Far)
	}
	return nil
}

func foretellGraph(o Options) float64 {
	periods := (o.For.Seconds() + settle/1e9) / o.Period.Seconds()
	events := float64(o.Nodes) * o.Graph.Upkeep * periods
	if o.Lookups > 0 {
		law := searchLaw(&o, o.Graph.Random(o.Nodes), o.Nodes)
		events += float64(o.Lookups) * (2 + law.Asks + law.Direct)
	}
	if o.Join {
		events += float64(o.Nodes) * (60 + float64(o.Nodes)/2*joinEvery/1e9/o.Period.Seconds()*o.Graph.Upkeep)
	}
	return events
}

// SearchLaw is what theory says of searches.
type SearchLaw struct {
	Success float64 `json:"success"`
	Hops    float64 `json:"hops"`             // mean, of those that succeed
	Asks    float64 `json:"asks"`             // messages from neighbour to neighbour
	Direct  float64 `json:"direct,omitempty"` // straight to and from who asks; 0: not reckoned
	Source  string  `json:"source"`
}

// searchLaw is that of n nodes with these degrees, some of which hold what is searched for; who asks does not.
func searchLaw(o *Options, degrees graph.Degrees, n int) SearchLaw {
	if o.Search == unstructured.Walk {
		return walkLaw(float64(o.Holders) / float64(n-1))
	}
	// Nothing is found within a ball whose other nodes all do not hold it.
	size, balls := float64(n), degrees.Balls(n)
	missed := func(t int) float64 {
		if t < 0 {
			return 1
		}
		others := (balls[min(t, len(balls)-1)].Nodes*size - 1) / (size - 1)
		return math.Pow(max(0, 1-others), float64(o.Holders))
	}
	last := len(balls) - 1
	if o.Far > 0 {
		last = min(last, o.Far)
	}
	law := SearchLaw{Success: 1 - missed(last), Asks: size * balls[last].Cost,
		Source: "the nearest of the holders, within balls of a random graph; a message a link and direction, but for those that brought the question: 2E − N + 1"}
	for t := 1; t <= last; t++ {
		law.Hops += float64(t) * (missed(t-1) - missed(t)) / law.Success
	}
	law.Direct = float64(o.Holders)
	if o.Search == unstructured.Widen {
		law.Asks, law.Direct = 0, 0
		for t := 1; t <= last; t++ {
			law.Asks += missed(t-1) * size * balls[t].Cost
			law.Direct += missed(t-1) * float64(o.Holders) * balls[t].Nodes
		}
		law.Source = "one flood after the other, each a link wider, until the nearest of the holders lies within the ball"
	}
	return law
}

// walkLaw is that of walkers that never meet and never come where one has been: each step finds a holder with the chance p. The
// first to do so ends the search, the others walk to their next question.
func walkLaw(p float64) SearchLaw {
	p = min(p, 1)
	q := 1 - math.Pow(1-p, walkers)
	rounds := 1 / (1 - math.Pow(1-q, stride))                                                                          // questions of a walker, the mean of ⌈hops / stride⌉
	return SearchLaw{Success: 1, Hops: 1 / q, Asks: 1/q + (walkers-1)*stride*rounds, Direct: walkers * (2*rounds - 1), // the hit in place of the last question
		Source: "16 walkers that never come where one has been: each step finds a holder with the chance r/(N−1)"}
}
