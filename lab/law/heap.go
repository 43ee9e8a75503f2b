package law

// event is something that arrives somewhere at a time. It is a value: nothing is allocated for it.
type event struct {
	at   int64  // ns
	seq  uint64 // of two at one time, the earlier made comes first
	slot int32  // of its request
	node int32  // where it arrives
	what what
}

type what uint8

const (
	enters     what = iota // the request, from its client
	lookedUp               // a lookup, from the neighbour before
	found                  // the answer to a lookup, from the owner
	forwarded              // the request, from the node that it entered by
	returned               // the answer, at the node that the request entered by
	answered               // the answer, at the client
	next                   // a client that has thought
	comesAlone             // the next request of an open loop
)

// events is a heap with four children a node: half as deep as a binary one, and siblings share a cache line (LaMarca
// and Ladner, ACM JEA 1, 1996).
type events []event

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.seq < o.seq
}

func (h *events) push(e event) {
	*h = append(*h, e)
	s := *h
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(&s[up]) {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = e
}

func (h *events) pop() event {
	s := *h
	top := s[0]
	last := s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	if len(s) == 0 {
		return top
	}
	i := 0
	for {
		first := 4*i + 1
		if first >= len(s) {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, len(s)); c++ {
			if s[c].before(&s[least]) {
				least = c
			}
		}
		if !s[least].before(&last) {
			break
		}
		s[i] = s[least]
		i = least
	}
	s[i] = last
	return top
}
