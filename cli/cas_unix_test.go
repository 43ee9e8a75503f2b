//go:build unix

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"servent/system"
)

const casFile = `name: cas
services:
  db:
    x-servent:
      builtin: kv
      architecture: partitioned
      scale: {min: 3}
      copies: 3
      cas: true
      route: /*
x-servent:
  nodes: {node: {count: 3}}
`

// casOp is a step of one client on one key: it reads, or makes a value of another one. Every value is written at most once:
// how often the key was incremented, a colon, and who did it when.
type casOp struct {
	key, expect, value string // a read has value alone: what it read
	read, failed       bool   // failed: the key was not as expected
}

// casModel is a key with compare-and-set.
var casModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(casOp).key
			byKey[key] = append(byKey[key], o)
		}
		var all [][]porcupine.Operation
		for _, h := range byKey {
			all = append(all, h)
		}
		return all
	},
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		switch o := input.(casOp); {
		case o.read:
			return state == o.value, state
		case o.failed:
			return state != o.expect, state
		default:
			return state == o.expect, o.value
		}
	},
	DescribeOperation: func(in, _ any) string { return fmt.Sprintf("%+v", in) },
}

// casHistory is what all clients did.
type casHistory struct {
	began time.Time

	mu       sync.Mutex // guards what follows
	sure     []porcupine.Operation
	open     []porcupine.Operation // whether they took place is not known
	seen     map[string]int64      // when a value was first read, by key and value
	acked    map[string]int        // increments, by key
	failures map[string]int        // by words
}

// settled are the operations whose outcome is known. An open one whose value nobody has read did not take place, or makes no
// difference: no other could follow it without having read it. One whose value was read did, before that.
func (h *casHistory) settled() []porcupine.Operation {
	all := h.sure
	for i, o := range h.open {
		if at, ok := h.seen[o.Input.(casOp).key+" "+o.Input.(casOp).value]; ok {
			o.Return, o.ClientId = max(at, o.Call), 1000+i
			all = append(all, o)
		}
	}
	return all
}

// increment reads a key at a door and writes its successor; how often it is done is what the key says.
func (h *casHistory) increment(client *http.Client, id, n int, door, key string) error {
	url := "http://" + door + "/kv/" + key
	call := time.Since(h.began).Nanoseconds()
	status, tag, have, err := casAsk(client, "GET", url, "")
	if err != nil || status != 200 && status != 404 {
		return h.failed("read", status, have, err)
	}
	if status == 404 {
		have = ""
	}
	at := time.Since(h.began).Nanoseconds()
	h.mu.Lock()
	h.sure = append(h.sure, porcupine.Operation{ClientId: id, Input: casOp{key: key, value: have, read: true}, Call: call, Return: at})
	if first, ok := h.seen[key+" "+have]; !ok || at < first {
		h.seen[key+" "+have] = at
	}
	h.mu.Unlock()
	count, _, _ := strings.Cut(have, ":")
	c, _ := strconv.Atoi(count) // 0 of a key that is not there
	o := casOp{key: key, expect: have, value: fmt.Sprintf("%d:%d.%d", c+1, id, n)}
	header := []string{"If-Match", tag}
	if have == "" {
		header = []string{"If-None-Match", "*"}
	}
	call = time.Since(h.began).Nanoseconds()
	status, _, said, err := casAsk(client, "PUT", url, o.value, header...)
	op := porcupine.Operation{ClientId: id, Input: o, Call: call, Return: time.Since(h.began).Nanoseconds()}
	h.mu.Lock()
	switch {
	case err == nil && status/100 == 2:
		h.acked[key]++
		h.sure = append(h.sure, op)
	case err == nil && status == 412:
		o.failed = true
		op.Input = o
		h.sure = append(h.sure, op)
	default:
		h.open = append(h.open, op)
	}
	h.mu.Unlock()
	if err != nil || status/100 != 2 && status != 412 {
		return h.failed("write", status, said, err)
	}
	return nil
}

func (h *casHistory) failed(what string, status int, said string, err error) error {
	if err == nil {
		err = fmt.Errorf("%d %s", status, strings.TrimSpace(said))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures[fmt.Sprintf("%s: %.140v", what, err)]++
	return err
}

func casAsk(client *http.Client, method, url, body string, header ...string) (status int, tag, got string, err error) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", "", err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(r)
	if err != nil {
		return 0, "", "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header.Get("Etag"), string(b), err
}

// TestKVCompareAndSet: clients increment a few keys by compare-and-set, through all nodes, while nodes are killed, paused and cut
// off. Every key's history is linearizable, and no acknowledged increment is lost.
func TestKVCompareAndSet(t *testing.T) {
	t.Parallel()
	lasts := 20 * time.Second
	if os.Getenv("SERVENT_LONG") != "" {
		lasts = time.Minute
	}
	w := start(t, casFile)
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	keys := []string{"a", "b", "c", "d", "e"}
	nodes := []system.NodeID{"node-1", "node-2", "node-3"}
	doors := map[system.NodeID]string{}
	for _, n := range nodes {
		doors[n] = w.door(n, "db")
	}
	h := &casHistory{began: time.Now(), seen: map[string]int64{}, acked: map[string]int{}, failures: map[string]int{}}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 6 * time.Second}
	defer client.CloseIdleConnections()
	for end := time.Now().Add(30 * time.Second); h.increment(client, 0, 0, doors["node-2"], "a") != nil; {
		if time.Now().After(end) {
			t.Fatalf("no compare-and-set without any fault: %v\n%s", h.failures, w.logs())
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	for id := 1; id <= 6; id++ {
		rnd := rand.New(rand.NewPCG(seed, uint64(id)))
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				pause := 5 * time.Millisecond
				if h.increment(client, id, n, doors[nodes[rnd.IntN(3)]], keys[rnd.IntN(len(keys))]) != nil {
					pause = 50 * time.Millisecond
				}
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		})
	}
	for turn, end := rnd.IntN(4), time.Now().Add(lasts); time.Now().Before(end); turn++ {
		at := rnd.IntN(3)
		v, other := string(nodes[at]), string(nodes[(at+1+rnd.IntN(2))%3])
		switch turn % 4 {
		case 0:
			w.fault("kill", v, "--for", "1s")
		case 1:
			w.fault("pause", v, "--for", "4s") // longer than a report and a confirmation live
		case 2:
			w.fault("cut", v, "--for", "4s")
		case 3:
			w.fault("cut", v, other, "--for", "3s")
		}
		w.over()
		<-time.After(rand.N(1500 * time.Millisecond))
	}
	stop()
	clients.Wait()
	w.well(60 * time.Second)
	for _, key := range keys { // last reads
		for end := time.Now().Add(30 * time.Second); h.increment(client, 0, 1, doors["node-2"], key) != nil; {
			if time.Now().After(end) {
				t.Fatalf("seed %d: %s is not answered when all is over: %v\n%s", seed, key, h.failures, w.logs())
			}
		}
		status, _, have, err := casAsk(client, "GET", "http://"+doors["node-3"]+"/kv/"+key, "")
		count, _, _ := strings.Cut(have, ":")
		c, _ := strconv.Atoi(count)
		if err = cmp.Or(err, map[bool]error{true: errors.New("no value")}[status != 200]); err != nil || c < h.acked[key] || c > h.acked[key]+len(h.open) {
			t.Errorf("seed %d: %s is %q (%d, %v) after %d acknowledged increments and %d open ones", seed, key, have, status, err, h.acked[key], len(h.open))
		}
	}
	history := h.settled()
	if result, _ := porcupine.CheckOperationsVerbose(casModel, history, 30*time.Second); result != porcupine.Ok {
		t.Errorf("seed %d: the history of %d operations is %s", seed, len(history), result)
	}
	total := 0
	for _, n := range h.acked {
		total += n
	}
	if total < 50 {
		t.Errorf("seed %d: only %d increments in all: the test proves nothing", seed, total)
	}
	t.Logf("seed %d: %d operations, %d increments, %d open; failures %v", seed, len(history), total, len(h.open), h.failures)
}
