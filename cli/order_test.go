package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/admin"
	"servent/flow"
)

// The example order: a flow makes its steps and takes them back; its node is killed while orders come, and no lamp is taken that nobody paid.
func TestOrder(t *testing.T) {
	t.Parallel()
	w := example(t, "order")
	file, err := os.ReadFile(filepath.Join(w.dir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w.write("compose.yaml", strings.Replace(string(file), "count: 3", "count: 4", 1)) // a node for each service: only the flow's is killed
	w.up()
	url, _, _ := strings.Cut("http://"+w.published("order"), "/orders")
	send := func(key, to string) (code int, s flow.Shown, err error) {
		req, err := http.NewRequest(http.MethodPost, url+"/orders", strings.NewReader(fmt.Sprintf(`{"item": "lamp", "n": 1, "buyer": "buyer of %s", "to": %q}`, key, to)))
		if err != nil {
			return 0, s, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, s, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, s, err
		}
		return resp.StatusCode, s, json.Unmarshal(b, &s)
	}
	left := func() int {
		t.Helper()
		var got struct{ Left int }
		if err := json.Unmarshal([]byte(fetch(t, url+"/left/lamp")), &got); err != nil {
			t.Fatal(err)
		}
		return got.Left
	}
	if code, s, err := send("first", "Delft"); err != nil || code != 200 || fmt.Sprint(s.Value) != fmt.Sprintf("map[order:%s paid:20 parcel:1]", s.Run) {
		t.Fatalf("%d %+v %v", code, s, err)
	}
	code, s, err := send("back", "nowhere")
	if err != nil || code != 409 || s.State != "failed" || !strings.Contains(s.Error, "shipping: 422") || left() != 99 {
		t.Errorf("to nowhere: %d %+v %v; %d left, want 99", code, s, err, left())
	}
	var shown flow.Shown
	if err := json.Unmarshal([]byte(fetch(t, url+"/orders/runs/"+s.Run)), &shown); err != nil {
		t.Fatal(err)
	}
	did := ""
	for _, m := range shown.Steps {
		did += " " + m.Name + " " + m.Did
	}
	if did != " stock done payment done shipping failed payment undone stock undone" {
		t.Errorf("the run shows%s", did)
	}

	victim := ""
	for _, in := range w.state().Instances {
		if in.Service == "order" {
			victim = string(in.Node)
		}
	}
	const orders = 60
	ends := make([]string, orders)
	var all sync.WaitGroup
	for i := range orders {
		all.Go(func() {
			to := "Delft"
			if i%5 == 4 {
				to = "nowhere"
			}
			<-time.After(time.Duration(i) * 20 * time.Millisecond)
			for end := time.Now().Add(time.Minute); time.Now().Before(end); <-time.After(100 * time.Millisecond) { // who gets no answer asks again, with the same key
				code, s, err := send(fmt.Sprint("key ", i), to)
				if err == nil && (code == 200 || code == 409) {
					ends[i] = string(s.State)
					return
				}
			}
		})
	}
	<-time.After(300 * time.Millisecond)
	if out, err := w.run("fault", "kill", victim, "--for", "2s"); err != nil {
		t.Fatalf("fault kill: %v\n%s", err, out)
	}
	all.Wait()
	w.until("well again", time.Minute, func(s admin.State) bool { return s.Settled })
	count := map[string]int{}
	for _, end := range ends {
		count[end]++
	}
	if count["done"] != orders*4/5 || count["failed"] != orders/5 || left() != 99-count["done"] {
		t.Errorf("%v; %d lamps left, want %d", count, left(), 99-orders*4/5)
	}
	resp, err := http.Get(url + "/orders/runs?state=running")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(bytes.TrimSpace(b), []byte("[]")) {
		t.Errorf("still running: %s %v", b, err)
	}
}
