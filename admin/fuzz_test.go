package admin

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"servent/control"
	"servent/placement"
	"servent/system"
)

// What readSystem takes can be written, is read back the same, and can be planned.
func FuzzReadSystem(f *testing.F) {
	text, _ := json.Marshal(shop().Wanted)
	f.Add(string(text))
	f.Add(`{"name":"a","services":[{"name":"b","architecture":"replicated","replicas":-1}]}`)
	f.Add(`{"name":"a","services":[{"name":"b","architecture":"nonsense","scale":{"min":3,"max":1}}],"nodes":[{"count":-5}]}`)
	f.Add(`{"name":1}`)
	f.Add(`[[[[`)
	f.Fuzz(func(t *testing.T, text string) {
		sys, err := readSystem(strings.NewReader(text))
		if err != nil {
			return
		}
		for i, s := range sys.Services {
			if s.Name == "" || i > 0 && s.Name <= sys.Services[i-1].Name {
				t.Fatalf("services are not sorted, each with a name of its own: %q", s.Name)
			}
		}
		again, err := json.Marshal(sys)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := readSystem(strings.NewReader(string(again))); err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, again)
		}
		NewState(&control.View{Wanted: sys, Plan: &system.Plan{}}, nil, nil)
		if len(sys.Services) < 8 {
			small := *sys
			for i := range small.Services {
				small.Services[i].Replicas, small.Services[i].Scale = min(small.Services[i].Replicas, 8), system.Scale{}
			}
			placement.Next(placement.Input{System: &small, Nodes: shop().Seen})
		}
	})
}

func FuzzReadCounts(f *testing.F) {
	f.Add(`{"api":4}`)
	f.Add(`{"api":-1,"api":99999999999999999999}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, text string) {
		counts, err := readCounts(strings.NewReader(text))
		if (err == nil) != (len(counts) > 0) {
			t.Fatalf("%q = %v, %v", text, counts, err)
		}
		for name, n := range counts {
			s := system.Service{Name: name, Architecture: system.Replicated}
			if Scale(&s, n) == nil && (s.Replicas < 1 || s.Replicas > maxScale || s.Scale.Max < s.Scale.Min) {
				t.Fatalf("scaled to %d, %+v", s.Replicas, s.Scale)
			}
		}
	})
}

// A trouble that is taken can be written, read back the same, and is within its bounds.
func FuzzReadTrouble(f *testing.F) {
	f.Add(`{"kind":"kill","node":"node-1","for":1000}`)
	f.Add(`{"kind":"slow","node":"node-1","peer":"node-2","one_way":true,"latency":100000000,"jitter":10000000,"rate":1000000}`)
	f.Add(`{"kind":"cut","node":"node-1","after":-1}`)
	f.Add(`{"kind":"cut","node":"node-1","peer":"node-1"}`)
	f.Add(`{"kind":"slow","node":"node-1","latency":9223372036854775807}`)
	nodes := []system.NodeID{"node-1", "node-2"}
	f.Fuzz(func(t *testing.T, text string) {
		tr, err := readTrouble(strings.NewReader(text))
		if err == nil {
			tr, err = tr.complete(nodes)
		}
		if err != nil {
			return
		}
		if tr.Node == "" || tr.Node == tr.Peer || tr.Jitter > tr.Latency || tr.Latency < 0 || tr.After < 0 || tr.Rate < 0 || tr.For < 0 || tr.For > maxFault ||
			tr.For == 0 && tr.Kind != FaultKill {
			t.Fatalf("%s was taken as %+v", text, tr)
		}
		again, err := json.Marshal(tr)
		if err != nil {
			t.Fatal(err)
		}
		same, err := readTrouble(strings.NewReader(string(again)))
		if err == nil {
			same, err = same.complete(nodes)
		}
		if err != nil || same != tr {
			t.Fatalf("%+v became %+v, %v", tr, same, err)
		}
	})
}

func FuzzLogQuery(f *testing.F) {
	f.Add("of=api&tail=3&follow=true")
	f.Add("tail=-9223372036854775808")
	f.Add("tail=%00&follow=2")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		if lq, err := logQuery(q); err == nil && lq.Tail < -1 {
			t.Fatalf("%q: tail %d", query, lq.Tail)
		}
	})
}
