// Package load sends requests as users would and measures what they get.
package load

import "time"

// Record is one request and its answer. It is kept only when Options.Keep asks for it.
type Record struct {
	N        int           // number of the request; draws are made from it
	Client   int           // closed loop: who sent it; open loop: 0
	Entry    int           // index in the mix
	Method   string        // GET, PUT, …; of TCP: TCP
	Path     string        // with the key in it
	Key      string        // "" when the entry has none
	Value    string        // what was sent as body, unique to this request; "" when nothing was
	Intended time.Duration // since the start of the run: when the schedule wanted it sent
	Sent     time.Duration // when it was; latency is Done-Intended
	Done     time.Duration // when the answer was complete, or the error known
	Site     string        // where the client is; "" when sites are not told apart
	Door     string        // host:port that answered or failed
	Status   int           // of HTTP; 0 without an answer, and of TCP
	Body     []byte        // the first 256 bytes of the answer
	Hash     uint64        // FNV-1a of the whole body of the answer
	Err      string        // "" or its class: see [Refused] and those below it
	Good     bool          // answered, with a status that is right for its entry
	Node     string        // Server-Timing: which node answered
	Instance string        // Server-Timing: which instance; "" for the node itself
	Hops     int           // Server-Timing: from node to node
	Lookup   int           // Server-Timing: messages until the owner was known
}
