package law

import (
	"errors"
	"math"
)

// Station is one service centre of a closed network.
type Station struct {
	Demand  float64 // seconds of work that one request brings: visits × service time
	Workers int     // 0 means 1
}

// Closed is a closed network with so many clients.
type Closed struct {
	Throughput  float64   // requests a second
	Response    float64   // seconds, without thinking
	Residence   []float64 // of it, at each station
	Utilisation []float64 // of each station's workers
}

// MVA is exact mean value analysis (Reiser and Lavenberg, JACM 27(2), 1980): clients send, wait for the
// answer and think. Stations with several workers carry the distribution of their number of requests along
// (Bolch et al., Queueing Networks and Markov Chains, 2nd ed., §8.2.1). It is exact for exponential service;
// a station that takes the same time for each is faster than it says, because nobody waits for an unusually
// long one, but both meet the same bounds.
func MVA(stations []Station, clients int, think float64) (Closed, error) {
	if clients < 1 || !(think >= 0) || len(stations) == 0 {
		return Closed{}, errors.New("mean value analysis: want at least one client and station, and no negative time")
	}
	work := 0.0
	for _, s := range stations {
		if !(s.Demand >= 0) || math.IsInf(s.Demand, 0) || s.Workers < 0 {
			return Closed{}, errors.New("mean value analysis: a station's demand is not a time")
		}
		work += s.Demand
	}
	if work+think == 0 {
		return Closed{}, errors.New("mean value analysis: nothing takes any time")
	}
	queue := make([]float64, len(stations))
	here := make([][]float64, len(stations)) // P(j requests at the station), j < its workers
	for i, s := range stations {
		here[i] = make([]float64, max(1, s.Workers))
		here[i][0] = 1
	}
	out := Closed{Residence: make([]float64, len(stations)), Utilisation: make([]float64, len(stations))}
	for n := 1; n <= clients; n++ {
		out.Response = 0
		for i, s := range stations {
			c := float64(len(here[i]))
			idle := 0.0 // workers that an arrival finds free, beyond the one it takes
			for j := range len(here[i]) - 1 {
				idle += (c - float64(j) - 1) * here[i][j]
			}
			out.Residence[i] = s.Demand / c * (1 + queue[i] + idle)
			out.Response += out.Residence[i]
		}
		out.Throughput = float64(n) / (think + out.Response)
		for i, s := range stations {
			queue[i] = out.Throughput * out.Residence[i]
			c := float64(len(here[i]))
			busy := out.Throughput * s.Demand
			out.Utilisation[i] = busy / c
			rest := busy
			for j := len(here[i]) - 1; j >= 1; j-- { // downwards: here[j−1] is still that of n−1
				here[i][j] = busy / float64(j) * here[i][j-1]
				rest += (c - float64(j)) * here[i][j]
			}
			here[i][0] = math.Max(0, 1-rest/c)
		}
	}
	return out, nil
}

// Bound is the asymptotic bound of a closed network (Denning and Buzen, Computing Surveys 10(3), 1978; the
// machine repairman's): no more than the clients can ask for and no more than the busiest station can do.
// response is what one request takes when it is alone.
func Bound(clients int, response, think float64, stations []Station) float64 {
	bound := float64(clients) / (response + think)
	for _, s := range stations {
		bound = math.Min(bound, float64(max(1, s.Workers))/s.Demand)
	}
	return bound
}
