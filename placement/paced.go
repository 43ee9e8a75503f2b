package placement

import (
	"math"
	"time"

	"servent/architecture"
	"servent/system"
)

// slowest is the latency on the node on which it is the greatest, in seconds.
func slowest(asked []demand) (most float64) {
	for _, d := range asked {
		most = max(most, d.latency)
	}
	return most
}

const (
	paceEvery = 5 * time.Second // from one step to the next: an instance starts, and two seconds of answers are measured
	paceMost  = 2.0             // times as many instances, in one step
	paceGain  = 0.9             // of the latency before, which more instances must bring it below to be of use
	paceSlack = 0.5             // of the goal, below which fewer instances would do
)

// pace is how many instances a goal of latency asks for. How latency falls with the number of instances nobody knows beforehand, so it goes step by step: as many times more as it
// is too slow, at most twice as many, and one fewer when it is faster than half of the goal. When a step up did not help, the next one is tried after scale.idle: then it is not the instances that are slow.
func (t *turn) pace(is *system.Called, calls architecture.Calls, slow float64) int {
	goal := calls.Latency.Seconds()
	var since time.Duration
	if is.Paced != nil {
		since = t.in.Now.Sub(is.Paced.At)
	}
	switch {
	case slow == 0:
		return calls.Min
	case is.Paced != nil && since < paceEvery:
		return is.Want
	case slow <= goal*paceSlack:
		return is.Want - 1
	case slow <= goal || useless(is, slow) && since < calls.Idle:
		return is.Want
	}
	return min(int(math.Ceil(float64(max(is.Want, 1))*min(paceMost, slow/goal))), calls.Max)
}

// useless says that the last step up did not make answers faster.
func useless(is *system.Called, slow float64) bool {
	return is.Paced != nil && is.Paced.From < is.Want && slow > is.Paced.Latency*paceGain
}

// inWords is a latency as it is read.
func inWords(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Microsecond).String()
}
