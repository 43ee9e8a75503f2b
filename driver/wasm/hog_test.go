package wasm

import (
	"testing"
	"time"

	"servent/system"
)

// Calls that never end leave a processor to a neighbour whose calls are short.
func TestNeighboursOfHogs(t *testing.T) {
	short, _ := begin(t, code("Content-Type: text/plain\n\na neighbour", say(1)...), system.Limits{})
	calls := func(d time.Duration) (n int) {
		for end := time.Now().Add(d); time.Now().Before(end); n++ {
			if w := ask(short, newRequest()); w.Code != 200 {
				t.Fatalf("a neighbour gets %d %s", w.Code, w.Body)
			}
		}
		return n
	}
	alone := calls(300 * time.Millisecond)
	hog, _ := begin(t, code("", forever...), system.Limits{Timeout: 600 * time.Millisecond})
	done := make(chan int)
	for range 8 {
		go func() { done <- ask(hog, newRequest()).Code }()
	}
	<-time.After(50 * time.Millisecond)
	beside := calls(300 * time.Millisecond)
	for range 8 {
		if code := <-done; code != 504 {
			t.Errorf("a call that never ends gets %d, want 504", code)
		}
	}
	t.Logf("%d calls alone, %d beside eight that never end", alone, beside)
	if beside < alone/20 { // of a fair share, two ninths; a busy machine takes of both
		t.Errorf("%d calls beside eight that never end, %d alone", beside, alone)
	}
}
