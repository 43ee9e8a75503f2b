package check

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"slices"
	"sort"
	"time"

	"servent/lab/load"
	"servent/lab/result"
)

// id stands for a value of a key.
type id uint64

const gone id = 0 // no value

func idOf(text string) id {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return max(id(h.Sum64()), 1)
}

// kv checks a store key by key: linearizability is local (Herlihy and Wing 1990, theorem 1).
type kv struct {
	o       Options
	keys    map[string]*register
	written map[id]bool // key and value of every write that was seen
	full    bool        // written holds no more
	matched int64       // reads that gave back something written
	total   tally
}

// register is what is carried of one key from run to run.
type register struct {
	values  []id // it may have now
	any     bool // nothing of it is known
	open    []op // writes without an answer that may still take place
	twisted bool // no order explains what was answered
	unsure  bool // that could not be decided for a part
	old     bool // the last answer was older than a write acknowledged before
}

// op is one request on one key.
type op struct {
	r          *load.Record // nil for a write of an earlier run
	write      bool
	val        id
	sent, done time.Duration // done is the end of time for a write that may never take place
}

func (o *op) open() bool { return o.done == math.MaxInt64 }

func newKV(o Options) *kv {
	k := &kv{o: o}
	k.forget()
	return k
}

func (k *kv) forget() {
	k.keys, k.written, k.full, k.matched, k.total = map[string]*register{}, map[id]bool{}, false, 0, tally{}
}

func (k *kv) fresh() *register {
	return &register{values: []id{gone}, any: k.o.Unknown}
}

func (k *kv) add(run []load.Record) {
	keys := map[string][]op{}
	var order []string
	for i := range run {
		key := keyOf(&run[i])
		o, ok := k.read(&run[i])
		if !ok {
			continue
		}
		if keys[key] == nil {
			if k.keys[key] == nil && len(k.keys) >= maxKeys {
				k.total.over++
				continue
			}
			order = append(order, key)
			if k.keys[key] == nil {
				k.keys[key] = k.fresh()
			}
		}
		keys[key] = append(keys[key], o)
	}
	end := time.Now().Add(k.o.Budget)
	for _, key := range order {
		k.key(key, keys[key], end)
	}
}

// read takes what a record says about its key.
func (k *kv) read(r *load.Record) (op, bool) {
	o := op{r: r, sent: r.Sent, done: max(r.Done, r.Sent)}
	switch r.Method {
	case http.MethodPut, http.MethodDelete:
		o.write = true
		if r.Method == http.MethodPut {
			o.val = idOf(plain(r.Value))
		}
		switch outcomeOf(r) {
		case never:
			// A DELETE of what is not there changes nothing and answers 404. So does one that a switch sent
			// twice because the first answer was lost.
			if r.Method != http.MethodDelete || !absent(r) {
				return o, false
			}
		case maybe:
			o.done = math.MaxInt64
			return o, true
		}
		k.total.writes++
	case http.MethodGet:
		switch {
		case !answered(r):
			return o, false
		case absent(r):
		case points(r): // counted when it is known what was written
			o.val = idOf(plain(string(r.Body)))
			return o, true
		case !fine(r):
			return o, false
		default:
			o.val = idOf(plain(string(r.Body)))
		}
		k.total.reads++
	default:
		return o, false
	}
	k.total.checked++
	return o, true
}

// mark of a key's value among all that was written.
func mark(key string, val id) id { return idOf(fmt.Sprintf("%s\x00%d", key, val)) }

// key looks at one run's requests on one key.
func (k *kv) key(key string, ops []op, end time.Time) {
	s := k.keys[key]
	for _, o := range ops {
		if !o.write || o.val == gone {
			continue
		}
		if k.full = k.full || len(k.written) >= maxValues; k.full {
			break
		}
		k.written[mark(key, o.val)] = true
	}
	ops = k.pointers(key, ops)
	h := newHistory(s, append(slices.Clone(s.open), ops...))
	if s.any {
		s.any = !h.settle(s)
	}
	k.anomalies(key, s, h)
	k.decide(s, h, end)
	if s.twisted || s.unsure {
		k.total.broken |= sessions(h)
	}
	s.open = h.still()
}

// pointers keeps the redirections that give back what somebody put there, as a URL shortener's do. Others lead
// to a login or to another form of the path: they are no answer about the value.
func (k *kv) pointers(key string, ops []op) []op {
	return slices.DeleteFunc(ops, func(o op) bool {
		if o.write || !points(o.r) {
			return false
		}
		ours := k.written[mark(key, o.val)]
		k.total.reads += one(ours)
		k.total.checked += one(ours)
		return !ours
	})
}

// anomalies counts the answers that are wrong whatever the order of the rest.
func (k *kv) anomalies(key string, s *register, h *history) {
	for i := range h.ops {
		o := &h.ops[i]
		if o.write {
			continue
		}
		v := h.vals[o.val]
		ours := k.written[mark(key, o.val)]
		k.matched += one(ours)
		switch {
		case v == nil && (ours || k.full || o.val == gone):
			k.stale(o, "was replaced before this run")
		case v == nil && len(o.r.Body) >= bodyBytes:
			k.total.cut++ // wrapped in something that the record cuts
		case v == nil:
			k.total.garbage++
			k.total.show(said(o.r, quote(plain(string(o.r.Body)))+", which nobody wrote"))
		case o.done < v.born:
			k.total.early++
			k.total.show(said(o.r, what(o)+", before it was written"))
		default:
			if by := h.over(o, v); by != nil {
				k.stale(o, fmt.Sprintf("%s was complete before the request began", by.words()))
			}
		}
	}
	if old, known := h.old(func(v id) bool { return v == gone || k.written[mark(key, v)] }); known {
		s.old = old
	}
}

func (k *kv) stale(o *op, why string) {
	k.total.stale++
	k.total.show(said(o.r, what(o)+", though "+why))
}

// what a read answered.
func what(o *op) string {
	if o.val == gone {
		return fmt.Sprint(cmp.Or(o.r.Status, http.StatusNotFound))
	}
	return quote(plain(string(o.r.Body)))
}

func (o *op) words() string {
	if o.r == nil {
		return "a write of an earlier run"
	}
	text := o.r.Method + " " + o.r.Path
	if o.r.Method == http.MethodPut {
		text += " " + quote(plain(o.r.Value))
	}
	return text
}

func (k *kv) fold(t *tally) {
	sum := k.total
	for _, key := range sortedKeys(k.keys) {
		s := k.keys[key]
		sum.keys++
		sum.lost += one(s.old)
		sum.twisted += one(s.twisted)
		sum.undecided += one(s.unsure && !s.twisted)
	}
	sum.wrong = max(sum.stale+sum.early+sum.garbage, sum.twisted)
	if sum.garbage > 0 && k.matched == 0 { // it answers something else than what was put
		sum = tally{mute: true, keys: sum.keys, reads: sum.reads, example: sum.example}
	}
	if sum.twisted > 0 {
		sum.show(fmt.Sprintf("no order of the requests explains the answers of %s", some(sum.twisted, "key")))
	}
	t.join(sum)
}

func (k *kv) words(t *tally, a *result.Answers) {
	var say list
	say.when(t.lost, "%s not in the last answers", some(t.lost, "acknowledged write"))
	say.when(t.stale, "%s of %s older than a write before them", number(t.stale), some(t.reads, "read"))
	say.when(t.garbage, "%s of %s that nobody wrote", number(t.garbage), some(t.reads, "value"))
	say.when(t.early, "%s of %s before they were written", number(t.early), some(t.reads, "value"))
	say.when(t.twisted, "not linearizable on %s of %s", number(t.twisted), some(t.keys, "key"))
	say.when(t.undecided, "%s of %s not decided in time", number(t.undecided), some(t.keys, "key"))
	say.when(t.cut, "%s too long to be compared", some(t.cut, "answer"))
	say.when(t.over, "%s not looked at: more than %s keys", some(t.over, "request"), number(maxKeys))
	if t.mute && t.checked == 0 {
		say.add("no answer holds what was written")
	}
	a.Text = say.String()
	switch {
	case t.checked == 0:
	case t.twisted == 0 && t.undecided == 0 && t.wrong == 0:
		a.Holds = "linearizable"
	default:
		a.Holds = t.broken.holds()
	}
}

// value is what is known of one value within a history.
type value struct {
	born   time.Duration // its first write began
	latest time.Duration // its last write had ended; with one write, also by the first read of it
	writes int
	start  bool // it may stand there from the beginning
}

// history is one run of one key.
type history struct {
	ops  []op // by Sent
	vals map[id]*value
	end  []ended // writes by the moment at which they were surely complete
}

type ended struct {
	at   time.Duration
	last *op // begun last of all that ended until then
}

const (
	before = -1 // what stood there when the run began was written before
	sooner = -2
)

func newHistory(s *register, ops []op) *history {
	h := &history{ops: ops, vals: map[id]*value{}}
	slices.SortStableFunc(h.ops, func(a, b op) int { return cmp.Compare(a.sent, b.sent) })
	for _, v := range s.values {
		h.vals[v] = &value{born: sooner, latest: before, start: true}
	}
	for i := range h.ops {
		if o := &h.ops[i]; o.write {
			v := h.vals[o.val]
			if v == nil {
				v = &value{born: o.sent, latest: o.done}
				h.vals[o.val] = v
			}
			v.writes++
			v.born, v.latest = min(v.born, o.sent), max(v.latest, o.done)
		}
	}
	h.order()
	return h
}

// order finds when each write was surely complete: its answer came, or its value was read.
func (h *history) order() {
	for i := range h.ops {
		o := &h.ops[i]
		if v := h.vals[o.val]; !o.write && v != nil && v.writes == 1 && !v.start && o.done >= v.born {
			v.latest = min(v.latest, o.done)
		}
	}
	h.end = h.end[:0]
	for i := range h.ops {
		if o := &h.ops[i]; o.write {
			at := o.done
			if v := h.vals[o.val]; v.writes == 1 && !v.start {
				at = min(at, v.latest)
			}
			if at != math.MaxInt64 {
				h.end = append(h.end, ended{at, o})
			}
		}
	}
	slices.SortStableFunc(h.end, func(a, b ended) int { return cmp.Compare(a.at, b.at) })
	for i := 1; i < len(h.end); i++ {
		if h.end[i-1].last.sent > h.end[i].last.sent {
			h.end[i].last = h.end[i-1].last
		}
	}
}

// over returns a write that surely stands between the value and the read of it, or nil.
func (h *history) over(o *op, v *value) *op {
	i := sort.Search(len(h.end), func(i int) bool { return h.end[i].at >= o.sent })
	if i == 0 || h.end[i-1].last.sent <= v.latest {
		return nil
	}
	return h.end[i-1].last
}

// old says whether the last answer about the key misses a write that was acknowledged before, when there
// is an answer.
func (h *history) old(written func(id) bool) (old, known bool) {
	var last *op
	for i := range h.ops {
		if o := &h.ops[i]; !o.write {
			last = o
		}
	}
	if last == nil {
		return false, false
	}
	v := h.vals[last.val]
	return v == nil && written(last.val) || v != nil && h.over(last, v) != nil, true
}

// settle finds what may have stood in a key of which nothing is known: what those read who began before
// the first write had ended for sure. It returns whether the start is known now.
func (h *history) settle(s *register) bool {
	first, values := time.Duration(math.MaxInt64), []id{}
	for i := range h.ops {
		if o := &h.ops[i]; o.write {
			first = min(first, o.done)
		}
	}
	for i := range h.ops {
		if o := &h.ops[i]; !o.write && o.sent <= first && !slices.Contains(values, o.val) {
			values = append(values, o.val)
		}
	}
	if len(values) == 0 && first == math.MaxInt64 {
		return false
	}
	s.values = values
	*h = *newHistory(s, h.ops)
	return true
}

// still are the writes without an answer that may yet take place: those that no answer has shown.
func (h *history) still() []op {
	var all []op
	read := map[id]bool{}
	for i := range h.ops {
		if !h.ops[i].write {
			read[h.ops[i].val] = true
		}
	}
	for i := range h.ops {
		if o := h.ops[i]; o.write && o.open() && (!read[o.val] || h.vals[o.val].writes > 1 || h.vals[o.val].start) && len(all) < maxOpen {
			all = append(all, op{write: true, val: o.val, sent: before, done: math.MaxInt64})
		}
	}
	return all
}

const maxOpen = 64 // writes of a key that may still take place
