package notation

import (
	"testing"
	"time"
)

func TestCron(t *testing.T) {
	at := func(s string) time.Time {
		out, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, tt := range []struct{ cron, zone, after, want string }{
		{"*/5 * * * *", "", "2026-11-26T10:02:00Z", "2026-11-26T10:05:00Z"},
		{"0 9 * * MON-FRI", "Europe/Amsterdam", "2026-11-27T09:00:00Z", "2026-11-30T08:00:00Z"},
		{"@every 90s", "", "2026-11-26T10:00:00Z", "2026-11-26T10:01:30Z"},
		{"@daily", "", "2026-11-26T10:00:00Z", "2026-11-27T00:00:00Z"},
		{"10 0 12 * * *", "", "2026-11-26T10:00:00Z", "2026-11-26T12:00:10Z"},
		{"30 2 * * *", "Europe/Amsterdam", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"}, // the hour that is left out
	} {
		s, err := Cron(tt.cron, tt.zone)
		if got := s.Next(at(tt.after)); err != nil || !got.Equal(at(tt.want)) {
			t.Errorf("%s in %q after %s = %v, %v, want %s", tt.cron, tt.zone, tt.after, got.UTC(), err, tt.want)
		}
	}
	s, err := Cron("30 2 * * *", "Europe/Amsterdam") // the hour that comes twice
	if err != nil {
		t.Fatal(err)
	}
	first := s.Next(at("2026-10-24T12:00:00Z"))
	if second := s.Next(first); second.Sub(first) < 20*time.Hour {
		t.Errorf("due twice in the night of the clocks: %v, %v", first.UTC(), second.UTC())
	}
	for _, bad := range [][2]string{{"* * * *", ""}, {"60 * * * *", ""}, {"@never", ""}, {"* * * * *", "Mars/Olympus"}, {"* * * * *", "Local"}, {"TZ=UTC * * * * *", ""}, {"", ""}} {
		if _, err := Cron(bad[0], bad[1]); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if got := (Schedule{}).Next(time.Now()); !got.IsZero() {
		t.Errorf("the zero schedule is due at %v", got)
	}
}

func FuzzCron(f *testing.F) {
	f.Add("*/5 * * * *", "UTC")
	f.Add("@every 1s", "")
	f.Fuzz(func(t *testing.T, s, zone string) {
		if c, err := Cron(s, zone); err == nil {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			if next := c.Next(now); !next.IsZero() && !next.After(now) {
				t.Errorf("%q is due at %v, which is not after %v", s, next, now)
			}
		}
	})
}
