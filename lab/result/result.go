// Package result holds the words of a comparison: what was run, what was measured, and what may be said of
// it. A [Result] is what stands in .servent/results/N/result.json and what a report is made from. Everything
// here is a value; nothing is computed but the reading and writing of the file.
//
// Three words are never mixed: real (a fleet), emulated (real programs, sockets, protocols and answers on one
// machine, with capacity and link delay emulated) and simulated (on virtual time). Every point says its [Mode].
package result

import (
	"time"

	"servent/system"
)

// Version of the form of a result. A file of another version is refused, with both named.
const Version = 1

// Mode is how a figure came about.
type Mode string

const (
	Real      Mode = "real"
	Emulated  Mode = "emulated"
	Simulated Mode = "simulated"
)

// Depth is how much was measured.
type Depth string

const (
	Quick Depth = "quick" // N = 1, 2, 4; saturation throughput and p90; at most 90 s
	Full  Depth = "full"  // N to 32; the greatest rate that keeps the goal, with p99
)

// Result is one comparison.
type Result struct {
	Version  int                `json:"version"`
	Servent  string             `json:"servent"` // version of the program
	System   string             `json:"system"`
	Service  system.ServiceName `json:"service"` // the one compared
	Files    []string           `json:"files"`
	Given    []string           `json:"given,omitempty"` // of them, those named on the command line, from the system's folder
	Mode     Mode               `json:"mode"`
	Depth    Depth              `json:"depth"`
	Seed     uint64             `json:"seed"`
	Slow     float64            `json:"slow,omitempty"` // by which emulated time was stretched; all figures are in the file's time; 0: not
	Started  time.Time          `json:"started"`
	Took     float64            `json:"took_seconds"`
	Partial  string             `json:"partial,omitempty"` // why it is not whole: "interrupted after 31 s"
	Host     Host               `json:"host"`
	Capacity []Capacity         `json:"capacity"` // one a group of nodes
	Goal     Goal               `json:"goal"`
	Load     string             `json:"load"`   // in words: closed loop, 4 clients a worker; POST /c/{key}; zipf 0.99 of 1000 keys
	Stated   Stated             `json:"stated"` // which figures are typed, measured, by construction
	Variants []Variant          `json:"variants"`
	Verdict  Verdict            `json:"verdict"`
	Validity Validity           `json:"validity"`
	Foretold *Foretold          `json:"foretold,omitempty"` // how well the simulation foretells what was measured
}

// Host is the machine that everything ran on.
type Host struct {
	OS      string  `json:"os"`
	Arch    string  `json:"arch"`
	CPUs    int     `json:"cpus"`
	Load    float64 `json:"load"`              // 1-minute load average before the run; -1: not known here
	Busy    float64 `json:"busy"`              // share of all processors that was used during the load, 0…1; -1: not known
	Ceiling float64 `json:"ceiling,omitempty"` // requests a second that this machine switches with no station; 0: not measured
}

// Capacity of the nodes of one group.
type Capacity struct {
	Group   string     `json:"group"`
	Site    string     `json:"site"`
	Rate    float64    `json:"rate"`              // requests a second and worker
	Workers int        `json:"workers"`           // of one node
	Pass    float64    `json:"pass"`              // requests or datagrams a second sent onward
	Source  string     `json:"source"`            // typed, measured
	Where   string     `json:"where,omitempty"`   // compose.yaml:9:20, when typed
	Latency [][]string `json:"latency,omitempty"` // site, one way delay: [["ap","60ms"]]
	Price   *Price     `json:"price,omitempty"`
}

// Price of one node.
type Price struct {
	Amount   float64 `json:"amount"`
	Currency string  `json:"currency"`
	Per      string  `json:"per"` // hour, month
}

// Goal is what a rate must keep.
type Goal struct {
	Percentile float64 `json:"percentile"` // 90, 99
	LatencyMS  float64 `json:"latency_ms"`
	Errors     float64 `json:"errors"`            // share, 0…1
	Survive    int     `json:"survive"`           // nodes killed
	Default    bool    `json:"default,omitempty"` // the file says nothing of latency
}

// Stated sorts the figures by where they come from.
type Stated struct {
	Typed        []string `json:"typed"`        // capacity 50/s per node (compose.yaml:9:20)
	Measured     []string `json:"measured"`     // program, sockets, routing, answers
	Emulated     []string `json:"emulated"`     // capacity, link delay
	Construction []string `json:"construction"` // single is flat because one node has one worker
}

// Variant is one way of running the same application.
type Variant struct {
	Name         string              `json:"name"`
	Set          map[string]string   `json:"set"`            // path → value over the file
	File         string              `json:"file,omitempty"` // that it is, whole; nothing is set then
	Up           bool                `json:"up,omitempty"`   // on one node, with as many times the workers as the point has nodes
	Architecture system.Architecture `json:"architecture"`
	Refused      string              `json:"refused,omitempty"` // why it was not run: the declared data forbids it
	Verdict      string              `json:"verdict"`           // best, worse, same, wrong, refused, unranked
	Answers      Answers             `json:"answers"`
	Points       []Point             `json:"points"`
	Survival     *Survival           `json:"survival,omitempty"`
	Cost         *Cost               `json:"cost,omitempty"`
	Runs         *Runs               `json:"runs,omitempty"` // where variants differ in it
	Law          *Law                `json:"law,omitempty"`
	Theory       *Theory             `json:"theory,omitempty"`
	Trace        []Step              `json:"trace,omitempty"` // one request as messages
	TraceWhat    string              `json:"trace_what,omitempty"`
}

// Answers is what the checker of a variant's answers found, over all its runs without a fault.
type Answers struct {
	Verdict string `json:"verdict"` // right, WRONG, unchecked
	Checker string `json:"checker"` // counter, kv, set, hash
	Checked int64  `json:"checked"` // answers looked at
	Wrong   int64  `json:"wrong"`
	Text    string `json:"text,omitempty"`    // 412 of 9,600 increments lost: every copy counts for itself
	Holds   string `json:"holds,omitempty"`   // the strongest guarantee that was not broken: linearizable, monotonic reads, …
	Example string `json:"example,omitempty"` // the first wrong answer, in words
}

// Interval is a median with a distribution-free confidence interval of at least 95 %.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// Latency in milliseconds, from the intended start of each request.
type Latency struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Point is one variant on so many nodes.
type Point struct {
	Nodes     int      `json:"nodes"`
	Mode      Mode     `json:"mode"`
	Valid     bool     `json:"valid"`
	Why       string   `json:"why,omitempty"`     // not valid, in words
	Offered   float64  `json:"offered,omitempty"` // requests a second, open loop
	Tried     bool     `json:"tried,omitempty"`   // on the way to the greatest rate that keeps the goal; not it
	Clients   int      `json:"clients,omitempty"` // closed loop
	Repeats   []Repeat `json:"repeats"`
	Rate      Interval `json:"rate"` // requests a second that were answered right within the goal's errors
	LatencyMS Latency  `json:"latency_ms"`
	Bins      []Bin    `json:"bins,omitempty"` // of latency, all repeats merged
	Requests  int64    `json:"requests"`
	Errors    int64    `json:"errors"`
	NotSent   int64    `json:"not_sent"`
	LateMS    float64  `json:"late_ms"`  // the generator's p99 lateness in sending
	Hops      float64  `json:"hops"`     // node to node, mean a request
	Lookup    float64  `json:"lookup"`   // of them, until the owner was known
	Messages  float64  `json:"messages"` // between nodes, mean a client's request: with those of calls that programs make of one another
	Bytes     float64  `json:"bytes"`    // between nodes, mean a request
	NodeLoad  []Share  `json:"node_load"`
	Gini      float64  `json:"gini"` // of node load, 0 even … 1 all on one
	Station   Station  `json:"station"`
}

// Repeat is one of a point's interleaved runs.
type Repeat struct {
	At       float64 `json:"at"` // seconds since the start of the comparison
	Seconds  float64 `json:"seconds"`
	Requests int64   `json:"requests"`
	Errors   int64   `json:"errors"`
	Rate     float64 `json:"rate"`
	P50      float64 `json:"p50"`
	P90      float64 `json:"p90"`
	P99      float64 `json:"p99"`
}

// Bin is so many requests of up to so many microseconds.
type Bin struct {
	Micros int64 `json:"us"`
	Count  int64 `json:"n"`
}

// Share is what one node served.
type Share struct {
	Node   system.NodeID `json:"node"`
	Served int64         `json:"served"`
	Passed int64         `json:"passed"` // sent onward
	Busy   float64       `json:"busy"`   // share of the station's time, 0…1
}

// Station says whether the emulated stations kept their word.
type Station struct {
	LateShare float64 `json:"late_share"` // of turns whose program was slower than the node; above 0.01 the point is invalid
	ValidRate float64 `json:"valid_rate"` // that would be valid
}

// Survival is what the death of a node costs, in four figures.
type Survival struct {
	What        string  `json:"what"`     // kill 1 node (node-3)
	Nodes       int     `json:"nodes"`    // there were
	Offered     float64 `json:"offered"`  // requests a second, open loop
	ErrorsFor   float64 `json:"errors_s"` // seconds with errors, until the last one
	Errors      int64   `json:"errors"`
	Recovery    float64 `json:"recovery_s"`          // until the rate is back at ≥ 95 % without errors; -1: not within the run
	Unreachable float64 `json:"unreachable_s"`       // longest that a key could not be reached
	KeysLost    float64 `json:"keys_lost"`           // share of keys that are lost for ever, 0…1; -1: no keys
	LostText    string  `json:"lost_text,omitempty"` // all (memory)
	Timeline    []Tick  `json:"timeline"`
	FaultAt     float64 `json:"fault_at"` // seconds into the timeline
}

// Tick is a tenth of a second of a timeline.
type Tick struct {
	At     float64 `json:"at"`
	Good   int     `json:"good"`
	Errors int     `json:"errors"`
	P90    float64 `json:"p90_ms"`
}

// Cost of a variant at its largest point.
type Cost struct {
	Nodes       int     `json:"nodes"`
	NodeSeconds float64 `json:"node_seconds"`    // per million requests
	Price       float64 `json:"price,omitempty"` // per million requests, by the file's price
	Currency    string  `json:"currency,omitempty"`
}

// Runs is what runs a variant's service: one instance on one node, whose speed nothing emulates.
type Runs struct {
	Software  string  `json:"software"` // process, image, vm, wasm, …
	Isolation string  `json:"isolation"`
	StartMS   float64 `json:"start_ms"` // from the start of an instance until it is ready, median of starts
	Starts    int     `json:"starts"`
	FirstMS   float64 `json:"first_ms"`         // first request of all; of what is woken with the start
	WarmMS    float64 `json:"warm_ms"`          // median of one client
	Rate      float64 `json:"rate"`             // requests a second of 16 clients
	CPUMicros float64 `json:"cpu_us"`           // processor time a request, of instance and node
	Memory    int64   `json:"memory"`           // bytes resident after the load; 0: inside the node, and thrown away after each request
	Woken     bool    `json:"woken,omitempty"`  // no instance while nobody calls
	Idle      float64 `json:"idle_s,omitempty"` // how long one is kept that nobody calls
}

// Law is the model that describes throughput against nodes best; see package law.
type Law struct {
	Model   string                `json:"model"` // linear-with-cap, amdahl, usl
	Params  map[string]float64    `json:"params"`
	Bands   map[string][2]float64 `json:"bands"` // 95 % by bootstrap
	AICc    map[string]float64    `json:"aicc"`  // of every model
	Curve   []CurvePoint          `json:"curve"` // never past twice the largest measured N
	Text    string                `json:"text"`
	Further []CurvePoint          `json:"further,omitempty"`  // simulated, calibrated on small N
	HeldOut []HeldOut             `json:"held_out,omitempty"` // simulation against what was measured
}

// CurvePoint is a model's throughput with its band.
type CurvePoint struct {
	Nodes int     `json:"nodes"`
	Rate  float64 `json:"rate"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Mode  Mode    `json:"mode,omitempty"`
}

// Foretold says how the simulation was calibrated, and how well it foretells points that it has not seen.
type Foretold struct {
	Calibrated []int   `json:"calibrated"`  // numbers of nodes
	OverheadMS float64 `json:"overhead_ms"` // of the host, for each way between two parties
	HeldOut    int     `json:"held_out"`    // points of all variants that it has not seen
	Error      float64 `json:"error"`       // of their throughput, median of the absolute errors
	Text       string  `json:"text"`
}

// HeldOut compares a simulated rate with the measured one that it did not see.
type HeldOut struct {
	Nodes     int     `json:"nodes"`
	Measured  float64 `json:"measured"`
	Simulated float64 `json:"simulated"`
	Error     float64 `json:"error"` // simulated/measured − 1
}

// Theory is what the textbook expects of a row of the architecture table.
type Theory struct {
	Formula string       `json:"formula"` // N·μ/(1 + h·pass/serve)
	Source  string       `json:"source"`
	Curve   []CurvePoint `json:"curve"`
	Hops    []CurvePoint `json:"hops,omitempty"` // mean lookups a request
}

// Step is one message of one request.
type Step struct {
	From string  `json:"from"` // client, node-1, counter/2
	To   string  `json:"to"`
	What string  `json:"what"` // POST /c/a, lookup, 200
	AtMS float64 `json:"at_ms"`
}

// Verdict is what may be said of the whole.
type Verdict struct {
	Kind     string   `json:"kind"` // winner, same, refused, none
	Best     string   `json:"best,omitempty"`
	Sentence string   `json:"sentence"`
	Notes    []string `json:"notes,omitempty"` // (replicated is as fast and WRONG)
	Tests    []Test   `json:"tests,omitempty"`
}

// Test is one comparison of two variants at the largest N that both have.
type Test struct {
	A, B   string  `json:"-"`
	Pair   string  `json:"pair"` // partitioned > single
	Nodes  int     `json:"nodes"`
	Effect float64 `json:"effect"`     // median(A)/median(B) − 1
	P      float64 `json:"p"`          // Mann–Whitney, two-sided
	Holm   float64 `json:"p_adjusted"` // Holm's correction
	Better bool    `json:"better"`     // p_adjusted < 0.05 and effect ≥ 10 %
}

// Validity says whether the run may be ranked.
type Validity struct {
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// Check is one line of the validity box.
type Check struct {
	Name  string `json:"name"` // machine, generator, stations, Little's law, not sent
	OK    bool   `json:"ok"`
	Text  string `json:"text"`            // machine 9 % busy by load
	Fatal bool   `json:"fatal,omitempty"` // refuses the ranking
}
