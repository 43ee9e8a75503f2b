package result

import "time"

// LoadVersion of the form of a [Load].
const LoadVersion = 1

// Load is what one load on one target got: servent load. Its words mean what they mean in a [Point].
type Load struct {
	Version  int       `json:"version"`
	Servent  string    `json:"servent"` // version of the program
	Target   string    `json:"target"`  // http://127.0.0.1:8080
	Load     string    `json:"load"`    // in words: open loop, 500/s for 10s; GET /a/{key}; zipf 0.99 of 1000
	Seed     uint64    `json:"seed"`
	Started  time.Time `json:"started"`
	Took     float64   `json:"took_seconds"`      // to the last answer
	Seconds  float64   `json:"seconds"`           // over which requests were to be sent
	Partial  string    `json:"partial,omitempty"` // why it is not whole: interrupted after 3.1s of 10s
	Host     Host      `json:"host"`
	Offered  float64   `json:"offered,omitempty"`  // requests a second that were to be sent; open loop and replay
	Clients  int       `json:"clients,omitempty"`  // closed loop
	ThinkMS  float64   `json:"think_ms,omitempty"` // of it
	Replay   *Replay   `json:"replay,omitempty"`
	Asked    int64     `json:"asked"`     // requests that were due
	Requests int64     `json:"requests"`  // that were sent, and answered or failed
	NotSent  int64     `json:"not_sent"`  // that were due while too many were open
	SentRate float64   `json:"sent_rate"` // sent, a second
	Rate     float64   `json:"rate"`      // answered right, a second
	Errors   int64     `json:"errors"`
	Kinds    []Errors  `json:"error_kinds"` // the most frequent first
	Statuses []Status  `json:"statuses"`    // of HTTP, ascending

	LatencyMS Tail  `json:"latency_ms"` // of right answers
	Bins      []Bin `json:"bins"`       // of it

	LateMS    float64  `json:"late_ms"`     // the generator's p99 lateness in sending
	LateMaxMS float64  `json:"late_max_ms"` // and its greatest
	WakeMS    float64  `json:"wake_ms"`     // by which the host woke up too late, p99
	Sent      int64    `json:"bytes_sent"`  // of requests; with TLS, what is inside
	Received  int64    `json:"bytes_received"`
	Validity  Validity `json:"validity"`
}

// Replay is the log that was sent again.
type Replay struct {
	File     string   `json:"file"`
	Speed    float64  `json:"speed"`
	Requests int      `json:"requests"`           // of the log that can be sent
	Skipped  int      `json:"skipped"`            // for their method
	Bad      int      `json:"bad"`                // lines that are no request
	Mistakes []string `json:"mistakes,omitempty"` // the first of them: access.log:7: want …
}

// Errors is how many requests failed in one way.
type Errors struct {
	Kind    string `json:"kind"` // timeout, refused, reset, status, …
	Count   int64  `json:"n"`
	Example string `json:"example,omitempty"` // the first, in words
}

// Status is how many answers had one.
type Status struct {
	Code  int   `json:"status"`
	Count int64 `json:"n"`
}

// Tail is a latency in milliseconds, from the intended start of each request, with its far end.
type Tail struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}
