package graph

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// What is measured is what a matrix says (the dumb twin): links, distances, clustering and components, with nodes that are gone.
func TestMeasures(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "nodes")
		names := rapid.SliceOfN(rapid.SliceOfN(rapid.Uint32Range(0, uint32(n-1)), 0, 4), n, n).Draw(t, "names")
		gone := rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, "gone")
		g := New(n, func(i int) bool { return gone[i] }, func(i int, into []uint32) []uint32 { return append(into, names[i]...) })
		far := make([][]int, n) // Floyd and Warshall
		for i := range far {
			far[i] = make([]int, n)
			for j := range far[i] {
				far[i][j] = 1000
			}
			far[i][i] = 0
		}
		linked := func(i, j int) bool { return far[i][j] == 1 }
		edges := 0
		for i, all := range names {
			for _, j := range all {
				if !gone[i] && !gone[j] && i != int(j) && !linked(i, int(j)) {
					far[i][j], far[j][i] = 1, 1
					edges++
				}
			}
		}
		clustering, some := 0.0, 0
		for i := range n {
			pairs, closed := 0, 0
			for j := range n {
				for l := range j {
					if linked(i, j) && linked(i, l) {
						if pairs++; linked(j, l) {
							closed++
						}
					}
				}
			}
			if pairs > 0 {
				clustering, some = clustering+float64(closed)/float64(pairs), some+1
			}
		}
		for k := range n {
			for i := range n {
				for j := range n {
					far[i][j] = min(far[i][j], far[i][k]+far[k][j])
				}
			}
		}
		sum, pairs, largest := 0.0, 0, 0
		for i := range n {
			size := 0
			for j := range n {
				if !gone[i] && far[i][j] < 1000 {
					if size++; i != j {
						sum, pairs = sum+float64(far[i][j]), pairs+1
					}
				}
			}
			largest = max(largest, size)
			if !gone[i] {
				for j, d := range g.From(i) {
					if want := far[i][j]; d != want && (d != -1 || want != 1000) {
						t.Fatalf("from %d to %d: %d, want %d", i, j, d, want)
					}
				}
			}
		}
		near := func(what string, got, sum float64, of int) {
			if of == 0 {
				of = 1
			}
			if math.Abs(got-sum/float64(of)) > 1e-9 {
				t.Fatalf("%s %v, want %v", what, got, sum/float64(of))
			}
		}
		near("clustering", g.Clustering(n), clustering, some)
		near("path length", g.PathLength(n), sum, pairs)
		if g.Edges() != edges || g.Largest(nil) != largest {
			t.Fatalf("%d edges, largest %d, want %d, %d", g.Edges(), g.Largest(nil), edges, largest)
		}
	})
}

// A graph of 20,000 nodes that each name 3 others evenly has the distances, clustering, flood costs and survivors of its law.
func TestRandom(t *testing.T) {
	const n, m = 20_000, 3
	rnd := rand.New(rand.NewPCG(1, 2))
	g := New(n, func(int) bool { return false }, func() func(int, []uint32) []uint32 {
		names := make([][m]uint32, n)
		for i := range names {
			for j := range names[i] {
				names[i][j] = uint32(rnd.IntN(n))
			}
		}
		return func(i int, into []uint32) []uint32 { return append(into, names[i][:]...) }
	}())
	law := ShiftedPoisson(m)
	near := func(what string, got, want, part float64) {
		t.Helper()
		if math.Abs(got-want) > part*want {
			t.Errorf("%s %.5f, theory %.5f within %.0f %%", what, got, want, 100*part)
		}
	}
	degrees := SpreadOf(g.Degrees())
	near("degree", degrees.Mean, law.Mean(), 0.001)
	near("its deviation", degrees.SD, law.SD(), 0.02)
	near("path length", g.PathLength(200), law.PathLength(n), 0.02)
	balls := law.Balls(n)
	near("flood of all", n*balls[len(balls)-1].Cost, float64(2*g.Edges()-n+1), 0.001)
	for far := 1; far <= 4; far++ { // beyond, what is left grows scarce
		cost, nodes := 0.0, 0.0
		for s := range 500 {
			for i, d := range g.From(s) {
				if d <= far {
					nodes++
				}
				if d < far {
					cost += float64(g.Degree(i) - 1)
				}
			}
			cost++
		}
		near("nodes within", nodes/500, n*balls[far].Nodes, 0.04)
		near("flood", cost/500, n*balls[far].Cost, 0.04)
	}
	for _, gone := range []float64{0.2, 0.5, 0.7} {
		missing, hubs := make([]bool, n), make([]bool, n)
		for _, i := range rnd.Perm(n)[:int(gone*n)] {
			missing[i] = true
		}
		near("survivors", float64(g.Largest(missing))/(n*(1-gone)), law.Survivors(gone), 0.03)
		for _, i := range g.Hubs()[:int(0.3*gone*n)] {
			hubs[i] = true
		}
		near("survivors of an attack", float64(g.Largest(hubs))/(n*(1-0.3*gone)), law.Attacked(0.3*gone), 0.03)
	}
}

// The law of growth sums up to 1 and has the mean 2m, and its start is that of the note in the package: ½, 1/5, 1/10 for m = 2.
func TestPreferential(t *testing.T) {
	p, sum := Preferential(2, 10_000), 0.0
	for _, share := range p {
		sum += share
	}
	for _, x := range [][2]float64{{sum, 1}, {p.Mean(), 4}, {p[2], 0.5}, {p[3], 0.2}, {p[4], 0.1}} {
		if math.Abs(x[0]-x[1]) > 1e-9 {
			t.Errorf("%v, want %v", x[0], x[1])
		}
	}
}
