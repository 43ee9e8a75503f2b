package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/system"
)

// stage runs one supervisor in a bubble.
type stage struct {
	t      *testing.T
	fake   *fake
	sup    *Supervisor
	log    *Log
	seen   []Status
	begin  time.Time
	cancel context.CancelFunc
	ended  chan error
}

func play(t *testing.T, change func(*system.Service, *fake), act func(*stage)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		service := &system.Service{Name: "api"}
		s := &stage{t: t, fake: newFake(), begin: time.Now(), ended: make(chan error, 1)}
		if change != nil {
			change(service, s.fake)
		}
		log, err := OpenLog(filepath.Join(dir, "api.log"), LogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		s.log = log
		s.sup = New(Job{Instance: "api/1", Service: service, Prepare: s.fake.prepare},
			Options{Output: log, Report: func(st Status) { s.seen = append(s.seen, st) }})
		ctx, cancel := context.WithCancel(t.Context())
		s.cancel = cancel
		go func() { s.ended <- s.sup.Run(ctx) }()
		act(s)
		s.end(nil)
	})
}

// end stops the supervisor and wants this error from it.
func (s *stage) end(want error) {
	s.t.Helper()
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	if err := <-s.ended; !errors.Is(err, want) || want == nil && err != nil {
		s.t.Errorf("Run() = %v, want %v", err, want)
	}
	if want == nil {
		s.state(system.StateStopped, "")
		if n := s.fake.runs(); n != 0 {
			s.t.Errorf("%d instances run after Run returned", n)
		}
	}
}

// after lets time pass until everything waits.
func (s *stage) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *stage) state(want system.State, why string) {
	s.t.Helper()
	st := s.sup.Status()
	if st.State != want || !strings.Contains(st.Why, why) || (why == "") != (st.Why == "") {
		s.t.Errorf("after %v: state = %q, why %q; want %q, why %q", time.Since(s.begin), st.State, st.Why, want, why)
	}
}

func (s *stage) states() (all []system.State) {
	for _, st := range s.seen {
		if len(all) == 0 || all[len(all)-1] != st.State {
			all = append(all, st.State)
		}
	}
	return all
}

func (s *stage) newest() *fakeInstance {
	s.t.Helper()
	select {
	case i := <-s.fake.now:
		return i
	default:
		s.t.Fatalf("after %v: no new instance", time.Since(s.begin))
		return nil
	}
}

func TestLife(t *testing.T) {
	play(t, func(_ *system.Service, f *fake) { f.sick = errIll }, func(s *stage) {
		s.after(500 * time.Millisecond)
		s.state(system.StateStarting, "")
		i := s.newest()
		s.after(time.Second)
		s.state(system.StateStarting, "not yet healthy: nobody listens")
		i.feel(nil)
		s.after(250 * time.Millisecond)
		s.state(system.StateReady, "")
		i.feel(errIll)
		s.after(4 * time.Second)
		s.state(system.StateReady, "") // two failures are not three
		s.after(2 * time.Second)
		s.state(system.StateUnhealthy, "3 checks failed: nobody listens")
		i.feel(nil)
		s.after(2 * time.Second)
		s.state(system.StateReady, "")
		if st := s.sup.Status(); st.Pid != 4711 || st.Endpoint.Address == "" || !st.Started.Equal(s.begin) {
			t.Errorf("status = %+v, want pid, endpoint and the time of the start", st)
		}
		if st, err := s.sup.Stats(t.Context()); err != nil || st.Pids != 3 {
			t.Errorf("Stats() = %v, %v", st, err)
		}
		s.end(nil)
		want := []system.State{"preparing", "starting", "ready", "unhealthy", "ready", "draining", "stopped"}
		if diff := cmp.Diff(want, s.states()); diff != "" {
			t.Error(diff)
		}
		if i.grace != 10*time.Second {
			t.Errorf("grace = %v, want 10s", i.grace)
		}
		if s.fake.closed != 1 {
			t.Errorf("what was prepared is closed %d times, want once", s.fake.closed)
		}
		if _, err := s.sup.Stats(t.Context()); err == nil {
			t.Error("Stats() of a stopped instance = nil, want an error")
		}
	})
}

func TestProbesAreFastUntilHealthy(t *testing.T) {
	play(t, func(_ *system.Service, f *fake) { f.sick = errIll }, func(s *stage) {
		s.after(0)
		i := s.newest()
		s.after(60 * time.Millisecond)
		if n := len(i.checks()); n < 3 {
			t.Errorf("%d checks within 60ms, want at least 3", n)
		}
		s.after(10 * time.Second)
		all := i.checks()
		if gap := all[len(all)-1].Sub(all[len(all)-2]); gap != slowProbe {
			t.Errorf("gap after 10s = %v, want %v", gap, slowProbe)
		}
		i.feel(nil)
		s.after(10 * time.Second)
		all = i.checks()
		if gap := all[len(all)-1].Sub(all[len(all)-2]); gap != defaultInterval {
			t.Errorf("gap when healthy = %v, want %v", gap, defaultInterval)
		}
	})
}

func TestNeverHealthy(t *testing.T) {
	play(t, func(_ *system.Service, f *fake) { f.sick = errIll }, func(s *stage) {
		s.after(59 * time.Second)
		s.state(system.StateStarting, "not yet healthy")
		s.after(4 * time.Second)
		s.state(system.StateStarting, "not healthy after 1m0s: nobody listens")
		if n := len(s.seen); n > 6 {
			t.Errorf("%d reports of one failure, want few", n)
		}
	})
}

func TestCheckThatHangs(t *testing.T) {
	play(t, func(v *system.Service, f *fake) { v.Health.Retries = 1 }, func(s *stage) {
		s.after(0)
		s.state(system.StateReady, "")
		i := s.newest()
		i.mu.Lock()
		i.hang = time.Hour
		i.mu.Unlock()
		s.after(5 * time.Second)
		s.state(system.StateUnhealthy, "no answer within 2s")
		i.end(Exit{Code: 2}) // seen at once, though a check is under way
		s.after(0)
		s.state(system.StateBackoff, "exit 2 after 5.0s; next try in 100ms")
	})
}

func TestBackoffGrowsAndForgets(t *testing.T) {
	play(t, func(_ *system.Service, f *fake) { f.say = "starting\npanic: no database\n" }, func(s *stage) {
		for n, wait := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000} {
			wait *= time.Millisecond
			s.after(100 * time.Millisecond)
			s.newest().end(Exit{Code: 1})
			s.after(0)
			times := fmt.Sprintf(", %d times", n+1)
			if n == 0 {
				times = ""
			}
			s.state(system.StateBackoff, fmt.Sprintf("exit 1 after 0.1s%s; next try in %v: panic: no database", times, wait))
			if st := s.sup.Status(); st.Restarts != n || st.Exit != "exit 1" || st.Pid != 0 {
				t.Errorf("status = %+v, want %d restarts, exit 1, no pid", st, n)
			}
			s.after(wait)
			s.state(system.StateReady, "")
		}
		i := s.newest()
		s.after(10 * time.Second) // well for long: all is forgotten
		i.end(Exit{Code: -1, Signal: "killed"})
		s.after(0)
		s.state(system.StateBackoff, "signal killed after 10.0s; next try in 100ms")
	})
}

func TestDelayOfTheFile(t *testing.T) {
	play(t, func(v *system.Service, _ *fake) { v.Restart.Delay = time.Minute }, func(s *stage) {
		for range 2 {
			s.after(0)
			s.newest().end(Exit{Code: 1})
			s.after(0)
			s.state(system.StateBackoff, "next try in 1m0s")
			s.after(time.Minute)
		}
	})
}

func TestRestartConditions(t *testing.T) {
	for _, tt := range []struct {
		condition string
		max       int
		exit      Exit
		want      system.State
		why       string
	}{
		{"", 0, Exit{Code: 0}, system.StateBackoff, "exit 0 after 0.0s; next try"},
		{"any", 0, Exit{Code: 0}, system.StateBackoff, "exit 0 after 0.0s; next try"},
		{"on-failure", 0, Exit{Code: 0}, system.StateDone, ""},
		{"on-failure", 0, Exit{Code: 3}, system.StateBackoff, "exit 3"},
		{"on-failure", 0, Exit{Code: 137, OOM: true}, system.StateBackoff, "out of memory"},
		{"none", 0, Exit{Code: 0}, system.StateDone, ""},
		{"none", 0, Exit{Code: 3}, system.StateFailed, "exit 3 after 0.0s; restart is none"},
		{"none", 0, Exit{Code: -1, Signal: "killed"}, system.StateFailed, "signal killed"},
		{"any", 1, Exit{Code: 3}, system.StateBackoff, "exit 3"},
	} {
		t.Run(fmt.Sprint(tt.condition, " ", tt.exit), func(t *testing.T) {
			play(t, func(v *system.Service, _ *fake) { v.Restart = system.Restart{Condition: tt.condition, Max: tt.max} }, func(s *stage) {
				s.after(0)
				s.newest().end(tt.exit)
				s.after(0)
				s.state(tt.want, tt.why)
				s.after(time.Minute)
				if restarted := s.fake.runs() == 1; restarted != (tt.want == system.StateBackoff) {
					t.Errorf("restarted = %v in state %s", restarted, tt.want)
				}
			})
		})
	}
}

func TestMaxAttempts(t *testing.T) {
	play(t, func(v *system.Service, _ *fake) { v.Restart.Max = 2 }, func(s *stage) {
		for range 3 {
			s.after(time.Second)
			s.newest().end(Exit{Code: 1})
		}
		s.after(time.Minute)
		s.state(system.StateFailed, "exit 1 after 0.8s, 3 times; 2 restarts are allowed")
		if n := len(s.fake.made); n != 3 {
			t.Errorf("%d starts, want 3", n)
		}
	})
}

func TestTroubleBeforeTheStart(t *testing.T) {
	disk := errors.New("fetch bundle: no space left on device")
	bad := fmt.Errorf("start api/1: no executable %q: %w", "foo", ErrArtifact)
	for _, tt := range []struct {
		name   string
		change func(*fake)
		at     time.Duration
		want   system.State
		why    string
	}{
		{"prepare fails", func(f *fake) { f.prepares = []error{disk, disk} }, 50 * time.Millisecond, system.StateBackoff, "no space left on device; next try in 100ms"},
		{"prepare fails twice", func(f *fake) { f.prepares = []error{disk, disk} }, 150 * time.Millisecond, system.StateBackoff, "next try in 200ms"},
		{"and then works", func(f *fake) { f.prepares = []error{disk, disk} }, 300 * time.Millisecond, system.StateReady, ""},
		{"prepare can never", func(f *fake) { f.prepares = []error{bad} }, time.Hour, system.StateFailed, "no executable"},
		{"start fails", func(f *fake) { f.starts = []error{disk} }, 50 * time.Millisecond, system.StateBackoff, "next try in 100ms"},
		{"start then works", func(f *fake) { f.starts = []error{disk} }, 100 * time.Millisecond, system.StateReady, ""},
		{"start can never", func(f *fake) { f.starts = []error{bad} }, time.Hour, system.StateFailed, "no executable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			play(t, func(v *system.Service, f *fake) { v.Restart.Condition = "none"; tt.change(f) }, func(s *stage) {
				s.after(tt.at)
				s.state(tt.want, tt.why)
				if st := s.sup.Status(); st.Restarts != 0 {
					t.Errorf("restarts = %d, want 0: it never ran", st.Restarts)
				}
			})
		})
	}
}

func TestStopWaits(t *testing.T) {
	play(t, func(v *system.Service, _ *fake) { v.Stop.Grace = 3 * time.Second }, func(s *stage) {
		s.after(time.Second)
		i := s.newest()
		i.stop = 2 * time.Second
		before := time.Now()
		s.end(nil)
		if took := time.Since(before); took != 2*time.Second || i.grace != 3*time.Second {
			t.Errorf("stopped after %v with grace %v, want 2s and 3s", took, i.grace)
		}
		if st := s.sup.Status(); st.Exit != "signal terminated" {
			t.Errorf("exit = %q", st.Exit)
		}
	})
}

func TestStopFails(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.after(time.Second)
		stuck := errors.New("stuck in the kernel")
		s.newest().stopErr = stuck
		s.end(stuck)
		s.state(system.StateUnhealthy, "cannot be stopped: stuck in the kernel")
	})
}

func TestStopDuringBackoff(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.after(0)
		s.newest().end(Exit{Code: 1})
		s.after(50 * time.Millisecond)
		s.end(nil)
		if n := len(s.fake.made); n != 1 {
			t.Errorf("%d starts, want 1", n)
		}
	})
}

func TestDisabledCheck(t *testing.T) {
	for _, h := range []system.Health{{Disabled: true}, {Command: []string{"NONE"}}} {
		play(t, func(v *system.Service, f *fake) { v.Health, f.sick = h, errIll }, func(s *stage) {
			s.after(0)
			s.state(system.StateReady, "")
			if n := len(s.newest().checks()); n != 0 {
				t.Errorf("%d checks, want none", n)
			}
		})
	}
}

func TestOwnWordsInTheLog(t *testing.T) {
	play(t, func(_ *system.Service, f *fake) { f.say = "half a line" }, func(s *stage) {
		s.after(0)
		s.newest().end(Exit{Code: 1})
		s.after(0)
		s.state(system.StateBackoff, ": half a line")
		var got []string
		for _, l := range s.log.Tail(-1) {
			got = append(got, l.Stream+" "+l.Text)
		}
		slices.Sort(got)
		want := []string{"servent ended, exit 1", "servent started, 4711", "stderr half a line"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}
