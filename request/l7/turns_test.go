package l7

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"servent/route"
)

// A door of the model "one" serves one request at a time: a slow one is at the head of the line. Another node's door has a line of its own.
func TestModelOne(t *testing.T) {
	for _, model := range []string{"threads", route.ModelOne} {
		t.Run(model, func(t *testing.T) {
			f := newFleet(t, 2, func(o *Options) { o.Hold = 100 * time.Millisecond })
			begun, finish := make(chan struct{}, 1), make(chan struct{})
			f.run("node-2", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					begun <- struct{}{}
					<-finish
				}
				_, _ = w.Write([]byte("done"))
			}))
			f.change(func() { f.service("api").Switch.Model = model })
			one, two, c := f.door("node-1"), f.door("node-2"), client(t)
			slow := make(chan string, 1)
			go func() {
				_, body := ask(t, c, "GET", one+"/slow", nil)
				slow <- body
			}()
			<-begun
			want := http.StatusOK
			if model == route.ModelOne {
				want = http.StatusServiceUnavailable
			}
			if res, body := ask(t, c, "GET", one+"/quick", nil); res.StatusCode != want || want != http.StatusOK && !strings.Contains(body, "one at a time") {
				t.Errorf("behind a slow request: %d %s, want %d", res.StatusCode, body, want)
			}
			if res, _ := ask(t, c, "GET", two+"/quick", nil); res.StatusCode != http.StatusOK {
				t.Errorf("at another door: %d", res.StatusCode)
			}
			close(finish)
			if got := <-slow; got != "done" {
				t.Errorf("the slow one got %q", got)
			}
			if res, _ := ask(t, c, "GET", one+"/quick", nil); res.StatusCode != http.StatusOK {
				t.Errorf("after it: %d", res.StatusCode)
			}
		})
	}
}
