package route

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/system"
)

func idle(system.InstanceID) Load { return Load{} }

// picks asks a picker of everyone in among so many times, with keys key-0, key-1, …, and counts.
func picks(p Picker, among []Instance, n int) map[system.InstanceID]int {
	got, rnd := map[system.InstanceID]int{}, rand.New(rand.NewPCG(5, 6))
	for i := range n {
		in, _ := Choose(p, Ask{Now: epoch, Rnd: rnd.Uint64(), Key: Key(fmt.Sprint("key-", i)), Among: among, Load: idle}, nil)
		got[in.ID]++
	}
	return got
}

func TestWeightedSharesByWeight(t *testing.T) {
	among := instances(3)
	among[0].Weight, among[1].Weight, among[2].Weight = 5, 1, 1
	// nginx's own example: a a b a c a a, and again.
	p, got := NewPicker("weighted"), ""
	for range 14 {
		got += string("abc"[p.Pick(Ask{Among: among, All: among, Load: idle})])
	}
	if want := "aabacaaaabacaa"; got != want {
		t.Errorf("turns %s, want %s", got, want)
	}
	among[1].Weight = 0 // unknown: all are equal
	if got := picks(NewPicker("weighted"), among, 300); got["api/1"] != 100 || got["api/2"] != 100 {
		t.Errorf("with a weight unknown: %v, want 100 each", got)
	}
}

// In any run of turns each instance has its share, up to one turn for each instance; who comes or goes in
// between changes the shares from then on and makes nobody catch up.
func TestWeightedIsSmooth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "n")
		among, sum := instances(n), 0.0
		for i := range among {
			among[i].Weight = rapid.Float64Range(0.5, 100).Draw(t, "weight")
			sum += among[i].Weight
		}
		p := NewPicker("weighted")
		if rapid.Bool().Draw(t, "one was there before") {
			more := append(slices.Clone(among), Instance{ID: "api/99", Weight: 50})
			for range rapid.IntRange(1, 20).Draw(t, "turns before") {
				p.Pick(Ask{Among: more, All: more})
			}
		}
		turns := rapid.IntRange(1, 300).Draw(t, "turns")
		got := make([]int, n)
		for range turns {
			got[p.Pick(Ask{Among: among, All: among})]++
		}
		for i, in := range among {
			if want := float64(turns) * in.Weight / sum; math.Abs(float64(got[i])-want) > float64(n)+1 {
				t.Fatalf("%s of weight %.1f/%.1f had %d of %d turns, want %.1f", in.ID, in.Weight, sum, got[i], turns, want)
			}
		}
	})
}

// Several goroutines at once still share exactly.
func TestWeightedFromManyGoroutines(t *testing.T) {
	among := instances(2)
	among[0].Weight, among[1].Weight = 3, 1
	p := NewPicker("weighted")
	var mu sync.Mutex
	var got [2]int
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				i := p.Pick(Ask{Among: among, All: among})
				mu.Lock()
				got[i]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got != [2]int{300, 100} {
		t.Errorf("turns %v, want 300 and 100", got)
	}
}

func TestNearest(t *testing.T) {
	among := instances(5)
	among[1].SameSite, among[2].SameSite = true, true
	among[3].SameSite, among[3].Local = true, true
	busy := func(id system.InstanceID) Load {
		return Load{Inflight: map[system.InstanceID]int{"api/2": 7, "api/4": 9}[id]}
	}
	for _, tt := range []struct {
		name  string
		avoid []system.InstanceID
		want  []system.InstanceID
	}{
		{"this node, busy or not", nil, []system.InstanceID{"api/4"}},
		{"the less busy of this site", []system.InstanceID{"api/4"}, []system.InstanceID{"api/3"}},
		{"anywhere", []system.InstanceID{"api/2", "api/3", "api/4"}, []system.InstanceID{"api/1", "api/5"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := map[system.InstanceID]bool{}
			for rnd := range uint64(60) {
				in, _ := Choose(nearest{}, Ask{Rnd: rnd, Among: among, Load: busy}, func(in Instance) bool { return slices.Contains(tt.avoid, in.ID) })
				got[in.ID] = true
			}
			if len(got) != len(tt.want) || !got[tt.want[0]] {
				t.Errorf("took %v, want %v", got, tt.want)
			}
		})
	}
}

// Keys are spread evenly, and the same key always finds the same instance, in whatever order they stand.
func TestKeysSpreadEvenly(t *testing.T) {
	for _, policy := range []string{"hash", "maglev"} {
		for _, n := range []int{2, 3, 7, 20} {
			const keys = 20000
			for id, got := range picks(NewPicker(policy), instances(n), keys) {
				if want := keys / float64(n); math.Abs(float64(got)-want) > 6*math.Sqrt(want) {
					t.Errorf("%s: %s of %d has %d keys of %d, want about %.0f", policy, id, n, got, keys, want)
				}
			}
			backwards := instances(n)
			slices.Reverse(backwards)
			a, b := NewPicker(policy), NewPicker(policy)
			for i := range 200 {
				key := Key(fmt.Sprint("key-", i))
				one, _ := Choose(a, Ask{Rnd: 1, Key: key, Among: instances(n), Load: idle}, nil)
				two, _ := Choose(b, Ask{Rnd: 2, Key: key, Among: backwards, Load: idle}, nil)
				if one.ID != two.ID {
					t.Fatalf("%s: key %d of %d is with %s and with %s", policy, i, n, one.ID, two.ID)
				}
			}
		}
	}
}

// moved counts the keys that are elsewhere under another set of instances although their own is in both.
func moved(policy string, before, after []Instance, avoid func(Instance) bool) (needless, must float64) {
	const keys = 5000
	p := NewPicker(policy)
	old := make([]Instance, keys)
	for i := range old {
		old[i], _ = Choose(p, Ask{Key: Key(fmt.Sprint("key-", i)), Among: before, Load: idle}, nil)
	}
	for i := range old {
		now, _ := Choose(p, Ask{Key: Key(fmt.Sprint("key-", i)), Among: after, Load: idle}, avoid)
		stays := slices.ContainsFunc(after, func(in Instance) bool { return in.ID == old[i].ID && (avoid == nil || !avoid(in)) })
		switch {
		case !stays:
			must++
		case now.ID != old[i].ID && len(after) <= len(before): // when one comes, what it takes must move, too
			needless++
		case now.ID != old[i].ID && slices.ContainsFunc(before, func(in Instance) bool { return in.ID == now.ID }):
			needless++
		}
	}
	return needless / keys, must / keys
}

// Rendezvous hashing moves no key that need not move. Maglev moves few: the paper's §5.3 has it that with
// a table much larger than the number of backends few entries change needlessly. Of one that is suspect or was tried only its own
// keys move under either.
func TestLittleMoves(t *testing.T) {
	for _, tt := range []struct {
		policy string
		most   float64
	}{{"hash", 0}, {"maglev", 0.06}} {
		for _, n := range []int{3, 5, 10} {
			all := instances(n)
			less := slices.Delete(slices.Clone(all), 1, 2)
			if got, must := moved(tt.policy, all, less, nil); got > tt.most || must < 0.5/float64(n) {
				t.Errorf("%s: one of %d goes: %.1f %% of the keys moved needlessly, want at most %.1f %% (%.1f %% had to)", tt.policy, n, 100*got, 100*tt.most, 100*must)
			}
			if got, _ := moved(tt.policy, less, all, nil); got > tt.most {
				t.Errorf("%s: one comes to %d: %.1f %% of the keys moved needlessly, want at most %.1f %%", tt.policy, n-1, 100*got, 100*tt.most)
			}
			if got, _ := moved(tt.policy, all, all, func(in Instance) bool { return in.ID == "api/2" }); got > 0 {
				t.Errorf("%s: one of %d is suspect: %.1f %% of other keys moved, want none", tt.policy, n, 100*got)
			}
		}
	}
}

// Maglev's entries: all taken, and nearly as many each. The paper's §5.3: "the number of entries … is as
// balanced as possible".
func TestMaglevTable(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 100, 1000} {
		count := make([]int, n)
		for _, e := range fill(instances(n)) {
			count[e]++
		}
		if low, high := slices.Min(count), slices.Max(count); high-low > 1 {
			t.Errorf("%d instances: between %d and %d entries, want a difference of 1 at most", n, low, high)
		}
	}
}

// No instance ever holds more than 1.25 times the average, rounded up, however the keys fall. Mirrokni et
// al., §1: "the maximum load is at most ⌈cm/n⌉".
func TestBoundedLoads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		among, p := instances(n), NewPicker("hash")
		held := map[system.InstanceID]int{}
		load := func(id system.InstanceID) Load { return Load{Inflight: held[id]} }
		total := 0
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			key := Key(fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "hot key"))) // nearly all of one or two instances
			in := among[p.Pick(Ask{Key: key, Among: among, All: among, Load: load})]
			held[in.ID]++
			total++
			if most := int(math.Ceil(1.25 * float64(total) / float64(n))); held[in.ID] > most {
				t.Fatalf("%s holds %d of %d on %d, want at most %d", in.ID, held[in.ID], total, n, most)
			}
		}
	})
	// Where there is room a key stays where it is.
	among := instances(4)
	want := among[highest(among, "k", nil)].ID
	if in, _ := Choose(NewPicker("hash"), Ask{Key: "k", Among: among, Load: idle}, nil); in.ID != want {
		t.Errorf("an idle service gives k to %s, want %s", in.ID, want)
	}
}

func TestStick(t *testing.T) {
	if in, ok := Stick(nil, "k", nil); ok {
		t.Errorf("nobody: %+v", in)
	}
	rapid.Check(t, func(t *rapid.T) {
		among := instances(rapid.IntRange(2, 8).Draw(t, "n"))
		key := Key(rapid.String().Draw(t, "key"))
		first, _ := Stick(among, key, nil)
		slices.Reverse(among)
		again, _ := Stick(among, key, nil)
		other, ok := Stick(among, key, func(in Instance) bool { return in.ID == first.ID })
		if again != first || !ok || other == first {
			t.Fatalf("%s, in another order %s, without it %s", first.ID, again.ID, other.ID)
		}
		gone := slices.DeleteFunc(slices.Clone(among), func(in Instance) bool { return in.ID == other.ID })
		if left, _ := Stick(gone, key, nil); left != first {
			t.Fatalf("moved from %s to %s though %s went", first.ID, left.ID, other.ID)
		}
	})
}

// Pickers of keys without a key, and whatever is out of the ordinary, still choose one of those asked.
func TestEveryPickerChoosesOneOfThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := instances(rapid.IntRange(1, 6).Draw(t, "n"))
		for i := range all {
			all[i].Weight = rapid.SampledFrom([]float64{0, 1, 1e9}).Draw(t, "weight")
			all[i].Local, all[i].SameSite = rapid.Bool().Draw(t, "local"), rapid.Bool().Draw(t, "site")
			if rapid.Bool().Draw(t, "young") {
				all[i].Ready = epoch.Add(-time.Duration(rapid.Int64Range(-int64(SlowStart), int64(2*SlowStart)).Draw(t, "age")))
			}
		}
		loads := map[system.InstanceID]Load{}
		for _, in := range all {
			loads[in.ID] = Load{Inflight: rapid.IntRange(0, 9).Draw(t, "inflight"), Suspect: rapid.Bool().Draw(t, "suspect"), Ejected: rapid.Bool().Draw(t, "ejected"), Life: in.Ready}
		}
		p := NewPicker(rapid.SampledFrom(Policies).Draw(t, "policy"))
		for range 5 {
			tried := rapid.SampledFrom(append([]Instance{{}}, all...)).Draw(t, "tried").ID
			in, ok := Choose(p, Ask{Now: epoch, Rnd: rapid.Uint64().Draw(t, "rnd"), Key: Key(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "key")), Among: all,
				Load: func(id system.InstanceID) Load { return loads[id] }}, func(in Instance) bool { return in.ID == tried })
			if left := len(all) > 1 || tried == ""; ok != left || ok && (in.ID == tried || !slices.Contains(all, in)) {
				t.Fatalf("chose %+v, %v; %s was tried", in, ok, tried)
			}
		}
	})
}

func TestSlowStart(t *testing.T) {
	old := epoch.Add(-time.Hour)
	for _, tt := range []struct {
		name  string
		ready [2]time.Time // of the other, and of the one that is counted
		want  float64      // of its share of a half
	}{
		{"both old", [2]time.Time{old, old}, 1},
		{"just ready", [2]time.Time{old, epoch}, 0.1},
		{"half way", [2]time.Time{old, epoch.Add(-SlowStart / 2)}, 0.5},
		{"over", [2]time.Time{old, epoch.Add(-SlowStart)}, 1},
		{"its clock is a little ahead", [2]time.Time{old, epoch.Add(time.Second)}, 0.1},
		{"its clock is wrong", [2]time.Time{old, epoch.Add(time.Hour)}, 1},
		{"both new: nobody has more to give", [2]time.Time{epoch.Add(-time.Second), epoch}, 1},
	} {
		for _, policy := range []string{"random", "roundrobin", "weighted", "p2c", "leastconn"} {
			t.Run(tt.name+"/"+policy, func(t *testing.T) {
				among := instances(2)
				among[0].Ready, among[1].Ready = tt.ready[0], tt.ready[1]
				const n = 4000
				got := float64(picks(NewPicker(policy), among, n)["api/2"]) / (n / 2)
				if math.Abs(got-tt.want) > 0.1 {
					t.Errorf("has %.2f of its share, want %.2f", got, tt.want)
				}
			})
		}
	}
	among := instances(2)
	among[0].Ready, among[1].Ready = old, epoch
	for _, policy := range []string{"hash", "maglev"} {
		if got := picks(NewPicker(policy), among, 1000)["api/2"]; got < 400 {
			t.Errorf("%s: a new instance has %d of 1000 keys; keys would move twice", policy, got)
		}
	}
}

// At most half are ejected; when more answer badly, the fault is not theirs.
func TestEjection(t *testing.T) {
	for n := 1; n <= 6; n++ {
		for bad := range n + 1 {
			among := instances(n)
			load := func(id system.InstanceID) Load { return Load{Ejected: ordinal(id) <= bad} }
			got := map[system.InstanceID]bool{}
			for rnd := range uint64(200) {
				in, _ := Choose(random{}, Ask{Rnd: rnd, Among: among, Load: load}, nil)
				got[in.ID] = true
			}
			want := n - bad
			if 2*bad > n {
				want = n
			}
			if len(got) != want {
				t.Errorf("%d of %d answer badly: %d are asked, want %d", bad, n, len(got), want)
			}
		}
	}
	// Who has begun a new life is not ejected for the old one.
	among := instances(2)
	among[0].Ready = epoch
	got := map[system.InstanceID]bool{}
	for rnd := range uint64(50) {
		in, _ := Choose(random{}, Ask{Rnd: rnd, Now: epoch.Add(time.Hour), Among: among, Load: func(id system.InstanceID) Load { return Load{Ejected: id == "api/1", Life: epoch.Add(-time.Hour)} }}, nil)
		got[in.ID] = true
	}
	if len(got) != 2 {
		t.Errorf("asked %v, want both", got)
	}
}

func TestJudge(t *testing.T) {
	one := Instance{ID: "api/1", Ready: epoch}
	for _, tt := range []struct {
		name   string
		script string // g: a good answer, b: a bad one, each 100 ms later; p: a pause of 11 s
		want   time.Duration
	}{
		{"four in a row", "bbbb", 0},
		{"five in a row", "bbbbb", EjectedFor},
		{"a good one in between", "bbbbgbbbb", 0},
		{"far apart", "bbbpbbpbbpbb", 0},
		{"every second of many", "gbgbgbgbgbgbgbgbgbgbgbgbgbgb", EjectedFor},
		{"every third of many", "ggbggbggbggbggbggbggbggbggbggbggbggb", 0},
		{"every second of few", "gbgbgbgb", 0},
		{"the second time in a row", "bbbbbpbbbbb", 2 * EjectedFor},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l Loads
			var got time.Duration
			now := epoch
			for _, c := range tt.script {
				now = now.Add(100 * time.Millisecond)
				if c == 'p' {
					now = now.Add(11 * time.Second)
					continue
				}
				got = max(got, l.Judge(one, now, c == 'b'))
			}
			if got != tt.want {
				t.Fatalf("ejected for %v, want %v", got, tt.want)
			}
			if load := l.Of("api/1", now, &Table{}); load.Ejected != (tt.want > 0) {
				t.Errorf("at once: %+v, want ejected %v", load, tt.want > 0)
			}
			if load := l.Of("api/1", now.Add(tt.want), &Table{}); load.Ejected {
				t.Errorf("after %v it is still ejected", tt.want)
			}
		})
	}
	var l Loads
	longest := time.Duration(0)
	for now := epoch; now.Before(epoch.Add(20 * time.Minute)); now = now.Add(time.Second) {
		longest = max(longest, l.Judge(one, now, true))
	}
	if longest != ejectedMost {
		t.Errorf("one that never recovers is ejected for %v at a time, want %v", longest, ejectedMost)
	}
	again := one
	again.Ready = epoch.Add(time.Hour)
	for range 4 {
		if got := l.Judge(again, epoch.Add(20*time.Minute), true); got != 0 {
			t.Errorf("in a new life ejected for %v after few failures", got)
		}
	}
}

func TestBudget(t *testing.T) {
	spend := func(b *Budget, now time.Time) (n int) {
		for b.Retry(now) {
			n++
		}
		return n
	}
	for _, tt := range []struct {
		name     string
		requests int
		want     int
	}{{"nothing yet", 0, 100}, {"few", 50, 110}, {"many", 10000, 2100}} {
		t.Run(tt.name, func(t *testing.T) {
			var b Budget
			for range tt.requests {
				b.Request(epoch)
			}
			if got := spend(&b, epoch); got < tt.want-1 || got > tt.want {
				t.Errorf("%d retries, want %d", got, tt.want)
			}
			if got := spend(&b, epoch.Add(time.Second)); got < 8 || got > 10 {
				t.Errorf("a second later %d more, want about 10", got)
			}
		})
	}
	var b Budget
	for range 10000 {
		b.Request(epoch)
	}
	if got := spend(&b, epoch.Add(10*forget)); got > 101 {
		t.Errorf("long after the requests %d retries, want about 100", got)
	}
}
