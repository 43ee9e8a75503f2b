package overlay

import (
	"fmt"
	"math"

	"servent/overlay/pastry"
)

// pastryLeaves are known by each node of a simulated Pastry, half on either side, as in the paper's §3.1.
const pastryLeaves = 16

func pastryRow() Protocol {
	return Protocol{
		Name: "pastry", Owner: Closest, Means: "each node knows its neighbours and members by prefix; a lookup goes a digit nearer with every hop",
		New: func(p Plan) Machine {
			rows := int(math.Log2(float64(p.Nodes)+1)/4) + 3
			return pastry.New(p.Nodes, pastry.Options{Leaves: pastryLeaves, Rows: rows, Lookups: questions(p, pastryLongest(p)), Period: p.Period, Wait: 4 * pastryLongest(p)})
		},
		OfLookup: pastry.OfLookup, Upkeep: 6.5, Usual: 0.5, Longest: pastryLongest,
		Join: func(n int) float64 { return float64(n) * 150 },
		Law:  func(n int) Law { return PastryLaw(n, pastryLeaves) },
	}
}

// pastryLongest is a hop for each digit, and one within the leaf set.
func pastryLongest(p Plan) int64 {
	return int64((math.Log2(float64(p.Nodes)+1)/4 + 4) * float64(p.Delay))
}

// PastryLaw follows a lookup digit by digit. A node that shares i digits with the key lies, like the key, anywhere in a
// part of the circle with M = N/16^i members: it has the key within its leaf set, L/2 members to either side, with the
// chance 1−(1−L/2M)², and then needs one hop, or none if it is the nearest itself. Else one hop leads to an entry that
// shares a digit more, and with the chance 1/16 each further ones by luck.
func PastryLaw(n, leaves int) Law {
	const most = 48
	x, half := float64(n), float64(leaves)/2
	if n <= leaves+1 {
		p := (x - 1) / x
		return Law{Mean: p, SD: math.Sqrt(p * (1 - p)), P99: math.Min(1, x-1), Messages: 3 * p, Source: "every node knows all: one hop, its acknowledgement and the answer, none to itself"}
	}
	levels := int(math.Log(x)/math.Log(16)) + 3
	after := make([][most]float64, levels+1)
	for i := levels; i >= 0; i-- {
		m := x / math.Pow(16, float64(i))
		within := 1.0
		if m > half {
			within = 1 - (1-half/m)*(1-half/m)
		}
		self := 1 / math.Max(m, 1)
		if i > 0 && m < 2*half { // it has come near: it may be the owner
			within = 1
		}
		d := &after[i]
		d[0], d[1] = within*math.Min(1, self/within), within-within*math.Min(1, self/within)
		part := (1 - within) * 15 / 16
		for j := i + 1; j <= levels; j++ {
			if j == levels {
				part *= 16. / 15
			}
			for h := 1; h < most; h++ {
				d[h] += part * after[j][h-1]
			}
			part /= 16
		}
	}
	// The asker shares i digits with the key with the chance 15/16^(i+1): the same mixture as that of a hop to nowhere.
	var law Law
	sum, squares, seen, p99 := 0.0, 0.0, 0.0, -1
	for h, p := range after[0] {
		sum, squares = sum+p*float64(h), squares+p*float64(h)*float64(h)
		if seen += p; p99 < 0 && seen >= 0.99 {
			p99 = h
		}
	}
	law.Mean, law.SD, law.P99 = sum, math.Sqrt(squares-sum*sum), float64(p99)
	law.Messages = 2*law.Mean + (x-1)/x
	law.Source = fmt.Sprintf("a digit of four bits with every hop, until the key lies within the leaf set of %d; each hop is acknowledged", leaves)
	return law
}
