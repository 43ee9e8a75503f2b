package inside

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

func spec(*testing.T, int) driver.Spec { return driver.Spec{Instance: "web/1"} }

func TestFilesConform(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		dir := folder(t, map[string]string{"hello.txt": "hello"})
		return drivertest.Subject{Driver: Files(), Spec: spec, Path: "/hello.txt", Says: "hello",
			Good: filesOf(dir),
			Bad: map[string]driver.Artifact{
				"no bundle":    filesOf(""),
				"nowhere":      filesOf(dir + "/nowhere"),
				"a file":       filesOf(dir + "/hello.txt"),
				"another kind": {Dir: dir, Software: system.Software{Kind: system.Process}},
			}}
	})
}

func TestOriginConforms(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) }))
		t.Cleanup(server.Close)
		return drivertest.Subject{Driver: Origin(), Spec: spec, Path: "/x", Says: "hello",
			Good: originOf(server.URL),
			Bad: map[string]driver.Artifact{
				"empty":        originOf(""),
				"no host":      originOf("http:///x"),
				"no scheme":    originOf("127.0.0.1:80"),
				"ftp":          originOf("ftp://127.0.0.1/"),
				"not a URL":    originOf("http://[::1"),
				"query":        originOf("http://127.0.0.1/?a=b"),
				"password":     originOf("http://me:secret@127.0.0.1/"),
				"another kind": {Software: system.Software{Kind: system.Files, From: server.URL}},
			}}
	})
}

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
				i := start("web/1", work, nil, func() { ended++ })
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
		i := start("web/1", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }), nil, func() {})
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
	i := start("web/1", http.NotFoundHandler(), nil, func() {})
	if err := i.Exec(t.Context(), []string{"true"}); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("Exec() = %v, want ErrUnsupported", err)
	}
}
