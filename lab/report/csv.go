package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"servent/lab/report/figure"
	"servent/lab/result"
)

var csvHead = []string{"variant", "architecture", "answers", "mode", "nodes", "valid", "why", "offered", "clients", "repeats",
	"rate_median", "rate_low", "rate_high", "p50_ms", "p90_ms", "p99_ms", "max_ms", "requests", "errors", "not_sent", "late_ms",
	"hops", "lookup", "messages", "bytes", "gini", "station_late_share", "tried"}

// CSV writes every point of every variant, a line each, in the order in which the result has them. What is not
// a number is an empty field.
func CSV(w io.Writer, r *result.Result) error {
	c := csv.NewWriter(w)
	if err := c.Write(csvHead); err != nil {
		return fmt.Errorf("write the points as CSV: %w", err)
	}
	for i := range r.Variants {
		v := &r.Variants[i]
		for k := range v.Points {
			if err := c.Write(csvLine(r, v, &v.Points[k])); err != nil {
				return fmt.Errorf("write the points as CSV: %w", err)
			}
		}
	}
	c.Flush()
	if err := c.Error(); err != nil {
		return fmt.Errorf("write the points as CSV: %w", err)
	}
	return nil
}

func csvLine(r *result.Result, v *result.Variant, p *result.Point) []string {
	return []string{field(v.Name), field(string(v.Architecture)), field(v.Answers.Verdict), field(string(modeOf(r, p))), strconv.Itoa(p.Nodes),
		strconv.FormatBool(p.Valid), field(p.Why), number(p.Offered), strconv.Itoa(p.Clients), strconv.Itoa(len(p.Repeats)),
		number(p.Rate.Median), number(p.Rate.Low), number(p.Rate.High),
		number(p.LatencyMS.P50), number(p.LatencyMS.P90), number(p.LatencyMS.P99), number(p.LatencyMS.Max),
		strconv.FormatInt(p.Requests, 10), strconv.FormatInt(p.Errors, 10), strconv.FormatInt(p.NotSent, 10), number(p.LateMS),
		number(p.Hops), number(p.Lookup), number(p.Messages), number(p.Bytes), number(p.Gini), number(p.Station.LateShare), strconv.FormatBool(p.Tried)}
}

// field is a word in a spreadsheet. One that would be read as a formula gets an apostrophe before it, as
// spreadsheets write it themselves.
func field(s string) string {
	s = figure.Clean(s)
	if strings.IndexAny(s, "=+-@") == 0 {
		s = "'" + s
	}
	return s
}

func number(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return ""
	}
	return strconv.FormatFloat(x, 'g', -1, 64)
}
