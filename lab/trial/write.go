package trial

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"servent/lab/result"
)

// Write writes what a load got as a table and, last, in words what stands against believing it.
func Write(w io.Writer, r *result.Load) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s · %s\n", clean(r.Target), clean(r.Load))
	if r.Partial != "" {
		fmt.Fprintf(&b, "PARTIAL: %s\n", r.Partial)
	}
	b.WriteByte('\n')
	rows(&b, counts(r))
	b.WriteByte('\n')
	l := r.LatencyMS
	if r.Requests > r.Errors {
		rows(&b, [][]string{{"latency", "p50", "p90", "p99", "p99.9", "max", ""},
			{"", figure(l.P50), figure(l.P90), figure(l.P99), figure(l.P999), figure(l.Max), from(r)}})
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "bytes    %s sent, %s received\n", size(r.Sent), size(r.Received))
	if r.Replay != nil {
		fmt.Fprintf(&b, "log      %s: %s, %s skipped for their method, %s bad\n", clean(r.Replay.File), some(int64(r.Replay.Requests), "request"),
			grouped(int64(r.Replay.Skipped)), some(int64(r.Replay.Bad), "line"))
	}
	var against []string
	for _, c := range r.Validity.Checks {
		if c.OK {
			continue
		}
		against = append(against, c.Text)
	}
	fmt.Fprintf(&b, "machine  %s\n", machine(r))
	for _, text := range against {
		fmt.Fprintf(&b, "\nbut: %s\n", text)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write what the load got: %w", err)
	}
	return nil
}

// from says what latency is measured from.
func from(r *result.Load) string {
	if r.Clients > 0 {
		return "from when a client was free to ask"
	}
	return "from when each request was due"
}

// counts are the requests, from what was wanted to what came of it.
func counts(r *result.Load) [][]string {
	rate := func(x float64) string { return strconv.FormatFloat(x, 'f', 1, 64) + "/s" }
	out := [][]string{{"", "requests", "rate", ""}}
	if r.Clients == 0 {
		out = append(out, []string{"asked", grouped(r.Asked), rate(r.Offered), ""})
	}
	out = append(out, []string{"sent", grouped(r.Requests), rate(r.SentRate), ""},
		[]string{"right", grouped(r.Requests - r.Errors), rate(r.Rate), ""},
		[]string{"failed", grouped(r.Errors), "", kinds(r)})
	if r.Clients == 0 {
		out = append(out, []string{"not sent", grouped(r.NotSent), "", ""})
	}
	if given := r.Asked - r.Requests - r.NotSent; given > 0 {
		out = append(out, []string{"given up", grouped(given), "", "open when it was interrupted"})
	}
	return out
}

// kinds are the errors in words: status 500 × 3, timeout × 2 (read …: i/o timeout).
func kinds(r *result.Load) string {
	var out []string
	for _, k := range r.Kinds {
		switch {
		case k.Kind == "status":
			for _, s := range r.Statuses {
				if s.Code >= 400 {
					out = append(out, fmt.Sprintf("status %d × %s", s.Code, grouped(s.Count)))
				}
			}
		case k.Example != "":
			out = append(out, fmt.Sprintf("%s × %s (%s)", k.Kind, grouped(k.Count), clean(k.Example)))
		default:
			out = append(out, fmt.Sprintf("%s × %s", k.Kind, grouped(k.Count)))
		}
	}
	return strings.Join(out, ", ")
}

// machine says what is known of the machine that measured.
func machine(r *result.Load) string {
	parts := []string{some(int64(r.Host.CPUs), "processor")}
	if r.Host.Busy >= 0 {
		parts = append(parts, fmt.Sprintf("%.0f %% busy", 100*r.Host.Busy))
	}
	if r.Clients == 0 {
		parts = append(parts, fmt.Sprintf("requests sent %s late (p99), %s at most", figure(r.LateMS), figure(r.LateMaxMS)))
	}
	parts = append(parts, "wakes up "+figure(r.WakeMS)+" late (p99)")
	return strings.Join(parts, " · ")
}

// rows prints columns; all but the first and the last are set right.
func rows(b *strings.Builder, all [][]string) {
	widths := make([]int, len(all[0]))
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for _, row := range all {
		line := ""
		for i, cell := range row {
			gap := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			switch i {
			case 0:
				line += cell + gap
			case len(row) - 1:
				line += "  " + cell
			default:
				line += "  " + gap + cell
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// clean makes words of users and servers one line that moves no cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// figure is a latency of so many milliseconds, with two or three digits that count: 0.25ms, 31ms, 1.24s.
func figure(ms float64) string {
	short := func(x float64, digits int) string {
		text := strconv.FormatFloat(x, 'f', digits, 64)
		if digits > 0 {
			text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
		}
		return text
	}
	switch {
	case ms < 1:
		return short(ms, 2) + "ms"
	case ms < 10:
		return short(ms, 1) + "ms"
	case ms < 1000:
		return short(ms, 0) + "ms"
	}
	return short(ms/1000, 2) + "s"
}

// span is how long something took, to a tenth of a second.
func span(d time.Duration) string {
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func some(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return grouped(n) + " " + what + "s"
}

// size is so many bytes with three digits that count.
func size(n int64) string {
	x, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if x < 1024 {
			break
		}
		x, unit = x/1024, next
	}
	digits := 0
	if unit != "B" && x < 100 {
		digits = 1
	}
	return strconv.FormatFloat(x, 'f', digits, 64) + unit
}
