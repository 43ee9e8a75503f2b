package notation

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // zones where the machine has no list of them

	"github.com/robfig/cron/v3"
)

var cronParser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// Schedule says when something is due. Zero: never.
type Schedule struct {
	spec cron.Schedule
	zone *time.Location
}

// Cron reads crontab's five fields, or six with seconds before them, or @hourly, @daily, @weekly, @monthly, @yearly, @every 90s; in a zone as Europe/Amsterdam,
// UTC when it is empty. Where clocks are put forward, what is due in the hour that is left out is not due that day; where they are put
// back, it is due once.
func Cron(s, zone string) (Schedule, error) {
	if strings.HasPrefix(s, "TZ=") || strings.HasPrefix(s, "CRON_TZ=") {
		return Schedule{}, fmt.Errorf("cron %q: say zone: beside it", s)
	}
	spec, err := cronParser.Parse(s)
	if err != nil {
		return Schedule{}, fmt.Errorf("cron %q: want five fields as in crontab, like */5 * * * *, or @every 30s: %w", s, err)
	}
	at := time.UTC
	if zone != "" {
		if at, err = time.LoadLocation(zone); err != nil || zone == "Local" {
			return Schedule{}, fmt.Errorf("zone %q: want one like Europe/Amsterdam", zone)
		}
	}
	return Schedule{spec, at}, nil
}

// Next is when it is due after t, the last time that it was; zero when it never is again.
func (s Schedule) Next(t time.Time) time.Time {
	if s.spec == nil {
		return time.Time{}
	}
	t = t.In(s.zone)
	next := s.spec.Next(t)
	if !next.IsZero() && next.Format(time.DateTime) == t.Format(time.DateTime) { // the same time of day again
		next = s.spec.Next(next)
	}
	return next
}
