package peer

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// book numbers peers as they come; it refuses the address "liar".
type book struct {
	ids   []ID
	names []Address
}

func (b *book) ID(p Peer) ID           { return b.ids[p] }
func (b *book) Address(p Peer) Address { return b.names[p] }
func (b *book) Self(s Slot) Peer       { return Peer(s) }

func (b *book) Intern(id ID, at Address) (Peer, error) {
	if at == "liar" {
		return Nobody, errors.New("it lies")
	}
	for p, name := range b.names {
		if name == at && b.ids[p] == id {
			return Peer(p), nil
		}
	}
	b.ids, b.names = append(b.ids, id), append(b.names, at)
	return Peer(len(b.ids) - 1), nil
}

func id(n byte) (id ID) {
	id[19] = n
	return id
}

// A message comes out as it went in, and is encoded in one way only.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &book{ids: []ID{id(1)}, names: []Address{"node-1"}}
		ev := Event{
			From: 0, Kind: rapid.Custom(func(t *rapid.T) Kind { return Travels + Kind(rapid.IntRange(0, 127).Draw(t, "kind")) }).Draw(t, "kinds"),
			Flags: rapid.Byte().Draw(t, "flags"), Hops: rapid.Uint16().Draw(t, "hops"), Tag: Tag(rapid.Uint32().Draw(t, "tag")),
			Num: rapid.Uint64().Draw(t, "num"), Key: id(rapid.Byte().Draw(t, "key")), Data: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"),
		}
		for i := range rapid.IntRange(0, 9).Draw(t, "peers") {
			p, _ := b.Intern(id(byte(i)), Address(rapid.StringMatching(`[a-z0-9-]{1,64}`).Draw(t, "address")+"x"[:i%2]))
			if len(b.names[p]) <= MaxAddress {
				ev.Peers = append(ev.Peers, p)
			}
		}
		wire, err := Append([]byte("before"), b, 0, &ev)
		if err != nil {
			t.Fatal(err)
		}
		size := Size(&ev, 0)
		for _, p := range ev.Peers {
			size += len(b.names[p])
		}
		if size != len(wire)-6 {
			t.Errorf("Size = %d, want %d", size, len(wire)-6)
		}
		var got Event
		if err := Decode(wire[6:], "node-1", b, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fmt.Sprintf("%+v", ev), fmt.Sprintf("%+v", got)); diff != "" {
			t.Errorf("event (-want +got):\n%s", diff)
		}
	})
}

func TestAppendRefuses(t *testing.T) {
	b := &book{ids: []ID{id(1), id(2), id(3)}, names: []Address{"node-1", "", Address(strings.Repeat("x", MaxAddress+1))}}
	for name, ev := range map[string]Event{
		"a command":        {Kind: Join},
		"no address":       {Kind: Travels, Peers: []Peer{1}},
		"a long address":   {Kind: Travels, Peers: []Peer{2}},
		"too many peers":   {Kind: Travels, Peers: make([]Peer, 256)},
		"too much data":    {Kind: Travels, Data: make([]byte, MaxDatagram-30)},
		"peers above size": {Kind: Travels, Peers: make([]Peer, 50)},
	} {
		if got, err := Append([]byte("x"), b, 0, &ev); err == nil || string(got) != "x" {
			t.Errorf("%s: Append = %q, %v, want x and an error", name, got, err)
		}
	}
	full := Event{Kind: Travels, Data: make([]byte, MaxDatagram-31)}
	if got, err := Append(nil, b, 0, &full); err != nil || len(got) != MaxDatagram {
		t.Errorf("the longest message has %d bytes, %v, want %d", len(got), err, MaxDatagram)
	}
}

func TestDecodeRefuses(t *testing.T) {
	b := &book{ids: []ID{id(1), id(2)}, names: []Address{"node-1", "liar"}}
	good, err := Append(nil, b, 0, &Event{Kind: Travels, Key: id(7), Num: 300, Peers: []Peer{0}})
	if err != nil {
		t.Fatal(err)
	}
	change := func(at int, to byte) []byte {
		w := bytes.Clone(good)
		w[at] = to
		return w
	}
	lying, err := Append(nil, b, 0, &Event{Kind: Travels, Peers: []Peer{1}})
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string][]byte{
		"version":       change(0, 2),
		"command":       change(1, byte(Leave)),
		"unknown parts": change(3, 0x81),
		"zero key":      change(49, 0),
		"long number":   append(append(bytes.Clone(good[:50]), 0x80|44, 0), good[52:]...),
		"no address":    change(73, 0),
		"long address":  change(73, MaxAddress+1),
		"more peers":    change(52, 2),
		"oversize":      append(bytes.Clone(good), make([]byte, MaxDatagram)...),
		"refused peer":  lying,
	} {
		var ev Event
		if err := Decode(w, "node-1", b, &ev); err == nil {
			t.Errorf("%s: decoded %+v, want an error", name, ev)
		}
	}
	for n := range good {
		if err := Decode(good[:n], "node-1", b, new(Event)); err == nil {
			t.Errorf("the first %d of %d bytes were decoded", n, len(good))
		}
	}
	if err := Decode(good, "liar", b, new(Event)); err == nil {
		t.Error("a refused sender was decoded")
	}
}

func FuzzDecode(f *testing.F) {
	b := &book{ids: []ID{id(1)}, names: []Address{"node-1"}}
	for _, ev := range []Event{{Kind: Travels}, {Kind: 200, Key: id(3), Num: math.MaxUint64, Hops: 7, Tag: 9, Flags: 3, Peers: []Peer{0, 0}, Data: []byte("data")}} {
		w, err := Append(nil, b, 0, &ev)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(w)
	}
	f.Fuzz(func(t *testing.T, w []byte) {
		b, ev := &book{}, Event{}
		if Decode(w, "node-9", b, &ev) != nil {
			return
		}
		if ev.Kind < Travels {
			t.Fatalf("kind %d came off the wire", ev.Kind)
		}
		again, err := Append(nil, b, ev.From, &ev)
		if err != nil || !bytes.Equal(w, again) {
			t.Fatalf("decoded from\n%x and encoded as\n%x, %v", w, again, err)
		}
	})
}

func TestEnv(t *testing.T) {
	b := &book{ids: []ID{id(1), id(2)}}
	e := NewEnv(b, 7, make([]uint32, 2))
	e.Begin(1)
	peers := []Peer{1, 2}
	e.Send(5, Event{Kind: Travels, Data: []byte("x")}, peers...)
	e.Forward(6, Event{Kind: Travels}, 3)
	e.After(3, Event{Kind: Timers, Tag: 4})
	e.Done(Event{Kind: Locate})
	peers[0], peers[1] = 8, 9 // effects hold their own
	want := []Effect{
		{Action: Send, To: 5, Event: Event{Kind: Travels, Peers: []Peer{1, 2}, Data: []byte("x")}},
		{Action: Forward, To: 6, Event: Event{Kind: Travels, Peers: []Peer{3}, Data: []byte{}}},
		{Action: Timer, To: Nobody, After: 3, Event: Event{Kind: Timers, Tag: 4, Peers: []Peer{}, Data: []byte{}}},
		{Action: Answer, To: Nobody, Event: Event{Kind: Locate, Peers: []Peer{}, Data: []byte{}}},
	}
	if diff := cmp.Diff(want, e.Effects()); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
	if e.Self() != 1 || e.ID(0) != id(1) {
		t.Errorf("Self = %d, ID(0) = %x", e.Self(), e.ID(0))
	}
	e.Begin(0)
	if len(e.Effects()) != 0 {
		t.Errorf("%d effects after Begin, want none", len(e.Effects()))
	}
}

// Random numbers do not depend on which slots share an environment, and are even.
func TestRand(t *testing.T) {
	const n = 4096
	both, apart, ones := NewEnv(&book{}, 7, make([]uint32, 2)), NewEnv(&book{}, 7, make([]uint32, 2)), [64]int{}
	for i := range n {
		both.Begin(Slot(i % 2))
		x := both.Rand()
		if i%2 == 1 {
			apart.Begin(1)
			if y := apart.Rand(); x != y {
				t.Fatalf("draw %d: %x beside another slot, %x alone", i, x, y)
			}
		}
		for bit := range ones {
			ones[bit] += int(x >> bit & 1)
		}
	}
	for bit, k := range ones { // n/2 ± 5σ
		if d := math.Abs(float64(k) - n/2); d > 5*math.Sqrt(n)/2 {
			t.Errorf("bit %d is set in %d of %d draws", bit, k, n)
		}
	}
}
