package store

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var anyVersion = rapid.Custom(func(t *rapid.T) Version {
	return Version{rapid.Uint64().Draw(t, "term"), rapid.Uint64Range(1, 1<<63).Draw(t, "clock"), rapid.StringN(0, 20, maxName).Draw(t, "node")}
})

var anyEntry = rapid.Custom(func(t *rapid.T) entry {
	e := entry{key: rapid.StringN(1, 50, MaxKey).Filter(func(k string) bool { return checkKey(k) == nil }).Draw(t, "key")}
	e.version = anyVersion.Draw(t, "version")
	e.expires = rapid.Int64Range(0, 1<<50).Draw(t, "expires")
	if e.dead = rapid.Bool().Draw(t, "dead"); !e.dead {
		e.kind = rapid.StringN(0, 20, maxKind).Draw(t, "kind")
		e.value = rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "value")
	}
	return e
})

func TestEntriesThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(anyEntry, 0, 5).Draw(t, "entries")
		var b []byte
		for _, e := range all {
			b = e.append(b)
		}
		got, err := parseEntries(b)
		if err != nil || !slices.EqualFunc(got, all, func(a, b entry) bool {
			return a.key == b.key && a.version == b.version && a.expires == b.expires && a.dead == b.dead && a.kind == b.kind && bytes.Equal(a.value, b.value)
		}) {
			t.Fatalf("parseEntries() = %v, %v, want %v", got, err, all)
		}
	})
}

// TestOrderOfVersions is total: of two different versions one wins, everywhere the same.
func TestOrderOfVersions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := anyVersion.Draw(t, "a"), anyVersion.Draw(t, "b"), anyVersion.Draw(t, "c")
		if a.Compare(b) != -b.Compare(a) || (a.Compare(b) == 0) != (a == b) || (a.ETag() == b.ETag()) != (a == b) {
			t.Fatalf("%v and %v", a, b)
		}
		if a.Compare(b) < 0 && b.Compare(c) < 0 && a.Compare(c) >= 0 {
			t.Fatalf("%v < %v < %v", a, b, c)
		}
	})
}

// TestClock: whatever wall clocks do, a later version of one store, or of one that has seen it, is greater.
func TestClock(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		wall := [2]*past{newPast(), newPast()}
		clocks := [2]*clock{{node: "a", now: wall[0].now}, {node: "b", now: wall[1].now}}
		var last [2]Version
		for range 500 {
			i := rnd.IntN(2)
			switch rnd.IntN(4) {
			case 0:
				wall[i].pass(time.Duration(rnd.IntN(3000)-1000) * time.Millisecond)
			case 1:
				if err := clocks[i].see(last[1-i]); err == nil && last[1-i].Compare(last[i]) > 0 {
					last[i] = last[1-i]
				}
			default:
				v := clocks[i].next()
				if v.Compare(last[i]) <= 0 || v.ms() < wall[i].now().UnixMilli() {
					t.Fatalf("seed %d: %v after %v at %v", seed, v, last[i], wall[i].now())
				}
				last[i] = v
			}
		}
	}
}

func TestClockRefusesTheFarFuture(t *testing.T) {
	wall := newPast()
	c := &clock{node: "a", now: wall.now}
	ahead := Version{Clock: uint64(wall.now().Add(maxDrift+time.Second).UnixMilli()) << 16, Node: "b"}
	if err := c.see(ahead); err == nil {
		t.Error("a version 61s ahead was taken")
	}
	if v := c.next(); v.ms() != wall.now().UnixMilli() {
		t.Errorf("its clock is at %d, want the wall's", v.ms())
	}
	wall.pass(time.Second)
	if err := c.see(ahead); err != nil || c.next().Compare(ahead) <= 0 {
		t.Errorf("a version 60s ahead: %v, want it taken and passed", err)
	}
}

func FuzzRecords(f *testing.F) {
	e := entry{"a/b", record{version: Version{3, 1 << 40, "store/1.2"}, expires: 99, kind: "text/plain", value: []byte("x")}}
	f.Add(e.append(nil))
	d := entry{"é", record{version: Version{0, 7, "n"}, dead: true}}
	f.Add(d.append(e.append(nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseEntries(b)
		if err != nil {
			return
		}
		var back []byte
		for _, e := range all {
			if err := checkKey(e.key); err != nil {
				t.Errorf("the key %q was taken: %v", e.key, err)
			}
			back = e.append(back)
		}
		if !bytes.Equal(back, b) {
			t.Errorf("%x was read as %x", b, back)
		}
	})
}

// FuzzPeerAnswers reads what peers may answer.
func FuzzPeerAnswers(f *testing.F) {
	h := held{"a", Version{1, 2, "n"}, true, 10, 20}
	f.Add(h.append(nil))
	f.Add(append([]byte{1}, appendVersion(nil, h.version)...))
	f.Add(appendTree(nil, []digest{{1, 2}}, []byte{0, 1}))
	f.Add(h.append([]byte{1, 255, 1}))
	f.Add(appendKeys(nil, []string{"a", "b"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if all, err := parseHeld(b); err == nil {
			var back []byte
			for _, h := range all {
				back = h.append(back)
			}
			if !bytes.Equal(back, b) {
				t.Errorf("%x was read as %x", b, back)
			}
		}
		if keys, err := parseKeys(b); err == nil && !bytes.Equal(appendKeys(nil, keys), b) {
			t.Errorf("%x was read as %q", b, keys)
		}
		if all, whole, err := parseTree(b); err == nil && !bytes.Equal(appendTree(nil, all, whole), b) {
			t.Errorf("%x was read as %v", b, all)
		}
		_, _, _ = parseAck(b)
		_, _ = parsePart(b)
	})
}

// FuzzPeer asks a store of a cluster whatever a peer may ask.
func FuzzPeer(f *testing.F) {
	e := entry{"a", record{version: Version{0, 1 << 20, "n"}, value: []byte("x")}}
	q := treeQuestion{"b", viewOf([]int{0}), 1, []int{0}}
	for i, body := range [][]byte{e.append(nil), []byte("a"), e.append(nil), appendKeys(nil, []string{"a"}), q.append(nil), {0, 0, 1}, {0, 0, 10}} {
		f.Add(uint8(i), body)
	}
	dir := f.TempDir()
	s := open(f, dir, Options{Name: "a", Cluster: &alone{}})
	peer := s.Peer()
	paths := []string{pathWrite, pathRead, pathPush, pathPull, pathTree, pathKeys, pathList}
	f.Fuzz(func(t *testing.T, path uint8, body []byte) {
		w := httptest.NewRecorder()
		peer.ServeHTTP(w, httptest.NewRequest("POST", paths[int(path)%len(paths)], bytes.NewReader(body)))
		if w.Code == http.StatusNotFound || w.Code == http.StatusInternalServerError || s.Check(t.Context()) != nil {
			t.Errorf("%s %x = %d %s, %v", paths[int(path)%len(paths)], body, w.Code, w.Body, s.Check(t.Context()))
		}
	})
}

// alone is a cluster of two of whom one never answers.
type alone struct{}

func (alone) Partitions() int      { return 1 }
func (alone) Partition(string) int { return 0 }
func (alone) Owners(int) []string  { return []string{"a", "b"} }
func (alone) Peers() []string      { return []string{"b"} }
func (alone) RoundTrip(string, *http.Request) (*http.Response, error) {
	return nil, http.ErrServerClosed
}

// FuzzRequests sends a store whatever a client may send.
func FuzzRequests(f *testing.F) {
	f.Add("PUT", "/kv/a", "ttl=3s", `"x"`, "*", "body")
	f.Add("GET", "/kv/", "prefix=a&limit=3&after=b", `W/"x", "y"`, `"z"`, "")
	f.Add("DELETE", "/kv/a%2Fb", "", "", `"z",,"`, "")
	s := open(f, f.TempDir(), Options{})
	f.Fuzz(func(t *testing.T, method, path, query, match, none, body string) {
		r := httptest.NewRequest("GET", "/", bytes.NewReader([]byte(body)))
		r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
		r.Header["If-Match"], r.Header["If-None-Match"] = []string{match}, []string{none}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s %q ? %q = %d %s", method, path, query, w.Code, w.Body)
		}
	})
}
