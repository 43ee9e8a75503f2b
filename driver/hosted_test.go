package driver_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"servent/driver"
	"servent/driver/drivertest"
)

// TestStopGivesOpenCallsTheGrace and then breaks them off; new ones are refused meanwhile.
func TestStopGivesOpenCallsTheGrace(t *testing.T) {
	for _, tt := range []struct {
		name   string
		works  time.Duration
		grace  time.Duration
		stop   time.Duration // ends the context of Stop
		took   time.Duration
		broken bool
	}{
		{"in time", 2 * time.Second, 10 * time.Second, time.Hour, 2 * time.Second, false},
		{"too late", 20 * time.Second, 10 * time.Second, time.Hour, 10 * time.Second, true},
		{"no patience", 20 * time.Second, 10 * time.Second, 3 * time.Second, 3 * time.Second, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended, broken := 0, false
				work := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					select {
					case <-time.After(tt.works):
					case <-r.Context().Done():
						broken = true
					}
				})
				i := driver.Host("web/1", work, nil, func() { ended++ })
				var calls sync.WaitGroup
				calls.Go(func() { drivertest.Ask(t.Context(), i.Endpoint(), "/") })
				synctest.Wait()
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), tt.stop)
				defer cancel()
				calls.Go(func() {
					if err := i.Stop(ctx, tt.grace); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				if status, _, _ := drivertest.Ask(t.Context(), i.Endpoint(), "/"); status != http.StatusServiceUnavailable {
					t.Errorf("a new call during the stop = %d, want 503", status)
				}
				calls.Wait()
				if took := time.Since(begin); took != tt.took || broken != tt.broken || ended != 1 {
					t.Errorf("took %v, broken %v, ended %d times; want %v, %v, once", took, broken, ended, tt.took, tt.broken)
				}
			})
		})
	}
}

func TestStopOfACallThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		i := driver.Host("web/1", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }), nil, func() {})
		var calls sync.WaitGroup
		calls.Go(func() { drivertest.Ask(t.Context(), i.Endpoint(), "/") })
		synctest.Wait()
		if err := i.Stop(t.Context(), time.Second); err == nil || !strings.Contains(err.Error(), "still runs") {
			t.Errorf("Stop() = %v, want an error", err)
		}
		close(release)
		calls.Wait()
		if err := i.Stop(t.Context(), time.Second); err != nil {
			t.Errorf("Stop() once it has ended = %v", err)
		}
	})
}

func TestExecIsUnsupported(t *testing.T) {
	i := driver.Host("web/1", http.NotFoundHandler(), nil, func() {})
	if err := i.Exec(t.Context(), []string{"true"}); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("Exec() = %v, want ErrUnsupported", err)
	}
}
