package cli

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"servent/lab/result"
)

// variant is one of a comparison, which must have been run with judged answers.
func variant(t *testing.T, r *result.Result, name string) *result.Variant {
	t.Helper()
	for i := range r.Variants {
		v := &r.Variants[i]
		if v.Name != name {
			continue
		}
		if len(v.Points) == 0 || v.Answers.Checked == 0 || v.Points[0].Requests == 0 {
			t.Fatalf("%s: %+v, want points and judged answers", name, v)
		}
		return v
	}
	t.Fatalf("no variant %s", name)
	return nil
}

// served is how many requests a point's nodes served in all, those of programs to one another too, and the share of the
// busiest node.
func served(p result.Point) (sum, busiest float64) {
	for _, n := range p.NodeLoad {
		sum += float64(n.Served)
		busiest = max(busiest, float64(n.Served))
	}
	return sum, busiest / sum
}

// answers asserts what the checker says of variants.
func answers(t *testing.T, r *result.Result, checker string, want map[string]string) {
	t.Helper()
	if len(r.Variants) < len(want) { // an architecture that is built later adds a row
		t.Errorf("%d variants, want %d", len(r.Variants), len(want))
	}
	for name, verdict := range want {
		if a := variant(t, r, name).Answers; a.Verdict != verdict || a.Checker != checker {
			t.Errorf("%s: %+v, want %s by %s", name, a, verdict, checker)
		}
	}
}

// What keeps nothing is right under every architecture.
func TestCompareIncrement(t *testing.T) {
	t.Parallel()
	r := compared(t, example(t, "increment"), "--nodes", "2", "--repeats", "1", "--no-fault")
	answers(t, r, "hash", map[string]string{"single": "right", "replicated": "right"})
}

// Copies that know nothing of one another do not find each other's links; one owner a name does.
func TestCompareShortener(t *testing.T) {
	t.Parallel()
	r := compared(t, example(t, "shortener"), "--nodes", "2", "--repeats", "3", "--no-fault")
	answers(t, r, "kv", map[string]string{"single": "right", "replicated": "WRONG", "partitioned": "right", "ring": "right"})
	if !strings.Contains(r.Load, "zipf 0.99 of 10000") {
		t.Errorf("load: %s, want Zipf keys", r.Load)
	}
}

// In a ring all nodes share the passes; by a relay one node has them all.
func TestCompareTokens(t *testing.T) {
	t.Parallel()
	r := compared(t, example(t, "tokens"), "--nodes", "3", "--repeats", "1", "--no-fault")
	answers(t, r, "hash", map[string]string{"ring": "right", "relay": "right"})
	ring, relay := variant(t, r, "ring").Points[0], variant(t, r, "relay").Points[0]
	turns, even := served(ring)
	if want := 4 * float64(ring.Requests); turns != want {
		t.Errorf("ring: %.0f turns, want %.0f: a start and three passes each", turns, want)
	}
	turns, busiest := served(relay)
	if want := 5 * float64(relay.Requests); turns != want {
		t.Errorf("relay: %.0f turns, want %.0f: a start, two to the relay and two from it each", turns, want)
	}
	if busiest < even+0.05 {
		t.Errorf("the busiest node has %.0f %% of the turns by the relay, %.0f %% in the ring; want clearly more", 100*busiest, 100*even)
	}
}

// Where the rules are decides how many turns an order takes; the answers are the same.
func TestCompareSplit(t *testing.T) {
	t.Parallel()
	r := compared(t, example(t, "split"), "--nodes", "2", "--repeats", "1", "--no-fault")
	answers(t, r, "hash", map[string]string{"front": "right", "middle": "right", "data": "right"})
	turns, bytes := map[string]float64{}, map[string]float64{}
	n := float64(variant(t, r, "data").Points[0].Requests)
	for _, v := range r.Variants {
		turns[v.Name], _ = served(v.Points[0])
		bytes[v.Name] = v.Points[0].Bytes
	}
	// n orders are n turns each of front, middle and data where data does the rules. Where front does them, those that
	// break a rule go no further. Where middle does them, data is asked once more than there; each of two fronts may have
	// learned the price only now.
	if turns["data"] != 3*n || math.Abs(turns["middle"]-turns["front"]-n) > 4 || turns["front"] >= turns["data"] {
		t.Errorf("%.0f orders took turns %v", n, turns)
	}
	if bytes["front"] <= 0 || bytes["front"] >= bytes["middle"] {
		t.Errorf("bytes between nodes for an order: %v, want fewest where the front does the rules", bytes)
	}
}

// Three files are three ways to cut one application: same answers, more turns.
func TestCompareMonolithTiersServices(t *testing.T) {
	t.Parallel()
	w := example(t, "split")
	var args []string
	for _, name := range []string{"monolith", "tiers", "services"} {
		args = append(args, filepath.Join(w.dir, name+".yaml"))
	}
	r := compared(t, w, append(args, "--nodes", "1", "--repeats", "1", "--no-fault")...)
	answers(t, r, "hash", map[string]string{"monolith": "right", "tiers": "right", "services": "right"})
	turns := map[string]float64{}
	for _, v := range r.Variants {
		turns[v.Name], _ = served(v.Points[0])
	}
	n := float64(variant(t, r, "monolith").Points[0].Requests)
	if turns["monolith"] != n || turns["tiers"] <= 2*n || turns["services"] != turns["tiers"] {
		t.Errorf("%.0f orders took turns %v; want one each, and as many in services as in tiers", n, turns)
	}
}

// foreign writes the files of a chapter of docs/foreign.md to a folder, as its reader would: a block whose first line names a
// file is that file. A tool that is missing skips the test.
func foreign(t *testing.T, chapter string, tools ...string) *world {
	t.Helper()
	have(t, append(tools, "sh")...)
	w := &world{t: t, dir: t.TempDir()}
	for i, block := range strings.Split(sections(t, "../docs/foreign.md")[chapter], "```") {
		_, text, _ := strings.Cut(block, "\n") // the block's language
		first, text, _ := strings.Cut(text, "\n")
		if name, ok := strings.CutPrefix(first, "# "); ok && i%2 == 1 {
			w.write(name, text)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "compose.yaml")); err != nil {
		t.Fatalf("chapter %q has no compose.yaml: %v", chapter, err)
	}
	return w
}

// Programs of Debian's, which know nothing of Servent.
func TestCompareForeignRedis(t *testing.T) {
	t.Parallel()
	w := foreign(t, "TCP: Redis", "redis-server")
	r := compared(t, w, "--nodes", "1,2", "--repeats", "2", "--no-fault")
	answers(t, r, "counter", map[string]string{"single": "right", "replicated": "WRONG"})
	if a := variant(t, r, "replicated").Answers; !strings.Contains(a.Text, "increments lost") || a.Example == "" {
		t.Errorf("replicated: %+v, want lost increments and one of them", a)
	}
}

func TestCompareForeignNginx(t *testing.T) {
	t.Parallel()
	w := foreign(t, "HTTP: nginx", "nginx")
	r := compared(t, w, "--nodes", "2", "--repeats", "1", "--no-fault")
	answers(t, r, "hash", map[string]string{"single": "right", "replicated": "right"})
}
