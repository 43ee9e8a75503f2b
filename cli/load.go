package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"servent/lab/load"
	"servent/lab/trial"
	"servent/system"
)

// loadOptions are the words of servent load, as they were typed.
type loadOptions struct {
	rate, open string
	clients    int
	replay     string
	speed      string
	unsafe     bool
	poisson    bool
	think      time.Duration
	length     time.Duration
	requests   int
	mix        []string
	keys       string
	body       string
	headers    []string
	send       string
	expect     string
	seed       uint64
	timeout    time.Duration
	cacert     string
}

func (e *env) loadCmd() *cobra.Command {
	var o loadOptions
	cmd := &cobra.Command{
		Use:   "load URL",
		Short: "Send requests to a target of yours and say what they got",
		Long: "Load sends requests to http://, https:// or tcp://HOST:PORT and measures what users would get. By default at a fixed\n" +
			"rate, whatever the answers (open loop): latency counts from the moment when a request was due, so a target that stalls\n" +
			"is seen to. With --clients each of so many sends its next request when its last is answered (closed loop). With\n" +
			"--replay the requests of an access log are sent again. A {key} in a path, a header or a body is the request's key.\n" +
			"HTTP is HTTP/1.1 over kept connections.",
		Example: "  servent load http://127.0.0.1:18080/c/{key} --rate 500/s --for 30s\n" +
			"  servent load http://127.0.0.1:18080 --clients 16 --mix 'GET /a/{key}=95,PUT /a/{key}=5' --keys 'zipf 0.99 of 1e5'\n" +
			"  servent load tcp://127.0.0.1:7000 --send '41\\n' --expect line",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := e.try(cmd.Context(), args[0], o, func(flag string) bool { return cmd.Flags().Changed(flag) })
			if m, wrong := errors.AsType[misuse](err); wrong && system.Next(err) == "" {
				err = misuse{&system.Hint{Err: m.error, Next: cmd.CommandPath() + " --help"}}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.rate, "rate", "50/s", "`RATE` of requests a second, whatever the answers")
	f.StringVar(&o.open, "open", "", "the same, or a `RATE` that climbs: 50..2000/s")
	f.IntVar(&o.clients, "clients", 0, "closed loop: `N` clients, each of which waits for its answer")
	f.DurationVar(&o.think, "think", 0, "of a client, between an answer and its next request")
	f.BoolVar(&o.poisson, "poisson", false, "at a rate: at random moments, as independent users ask")
	f.DurationVar(&o.length, "for", 10*time.Second, "how long; at most an hour")
	f.IntVarP(&o.requests, "requests", "n", 0, "`N` requests at most; without --for they alone are the end")
	f.StringArrayVar(&o.mix, "mix", nil, "`REQUESTS` with weights instead of the URL's path: \"GET /a/{key}=95,PUT /a/{key}=5\"")
	f.StringVar(&o.keys, "keys", "", "`KEYS` that {key} stands for: \"zipf 0.99 of 1e5\"; default uniform of 1000")
	f.StringVar(&o.body, "body", "", "`TEXT` of a request, or @FILE; without --mix it makes the request a POST")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "`HEADER` like \"Name: value\", more than once for several")
	f.StringVar(&o.send, "send", "", "over TCP: `BYTES` that are sent, with \\n, \\t, \\x00 as in C")
	f.StringVar(&o.expect, "expect", "line", "over TCP: the `END` of an answer: line, end, or a number of bytes")
	f.StringVar(&o.replay, "replay", "", "send the requests of an access log again: `FILE` in the combined format or JSON lines")
	f.StringVar(&o.speed, "speed", "1x", "`FACTOR` of the replay: 2x is twice as fast")
	f.BoolVar(&o.unsafe, "unsafe", false, "replay all methods, not GET and HEAD alone: they change what they reach")
	f.Uint64Var(&o.seed, "seed", 1, "of every draw; one seed sends the same requests again")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "of one request; at most a minute")
	f.StringVar(&o.cacert, "cacert", "", "PEM `FILE` with the certificates to trust instead of the system's")
	return cmd
}

// knockWithin is how long a target may take to be connected to before the load starts.
const knockWithin = 5 * time.Second

// try loads a target and shows what it got.
func (e *env) try(ctx context.Context, url string, o loadOptions, given func(string) bool) error {
	at, err := parseTarget(url)
	if err != nil {
		return misuse{err}
	}
	t, err := at.trial(o, given)
	if err != nil {
		return err
	}
	if t.Replay != nil {
		for _, m := range t.Replay.Mistakes {
			fmt.Fprintf(e.err, "note: %s\n", m)
		}
		if more := t.Replay.Bad - len(t.Replay.Mistakes); more > 0 {
			fmt.Fprintf(e.err, "note: and %s more that are no request\n", count(more, "line"))
		}
	}
	site := t.Load.Sites[0]
	if err := e.reach(ctx, at, site); err != nil {
		return err
	}
	fmt.Fprintf(e.err, "%s: %s\n", t.Target, t.Words)
	t.Load.Tell = e.loading(t.Load.Duration)
	res, err := trial.Run(ctx, t)
	e.clearLine()
	if err != nil {
		return err
	}
	if e.json {
		err = e.print(res)
	} else {
		err = trial.Write(e.out, res)
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err() // a load that was interrupted has failed, but what it measured is there
	case res.Requests == res.Errors:
		return &system.Hint{Err: errors.New("no request succeeded"), Next: at.look()}
	}
	return nil
}

// reach says what keeps a load from its target, before it starts.
func (e *env) reach(ctx context.Context, at *target, site load.Site) error {
	look, cancel := context.WithTimeout(ctx, knockWithin)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(look, "ip", at.host)
	if err == nil {
		for _, a := range addresses {
			if a = a.Unmap(); !a.IsLoopback() && !a.IsPrivate() && !a.IsLinkLocalUnicast() {
				fmt.Fprintf(e.err, "note: %s is a public address: load only what is yours\n", a)
				break
			}
		}
		_, err = load.Knock(ctx, site, knockWithin)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return &system.Hint{Err: fmt.Errorf("%s cannot be reached: %w", at.base(), err), Next: at.look()}
	}
	return nil
}

// loading shows how far a load is, on a terminal.
func (e *env) loading(length time.Duration) func(load.Progress) {
	if !terminal(e.err) {
		return nil
	}
	var last load.Progress
	return func(p load.Progress) {
		was := last
		if last = p; p.At < time.Second {
			return
		}
		of := ""
		if length > 0 {
			of = " of " + length.String()
		}
		rate := float64(p.Sent-was.Sent) / max((p.At-was.At).Seconds(), 1e-3)
		fmt.Fprintf(e.err, "\r\x1b[2K%s%s  %d answered  %.0f/s  %d failed  %d open", p.At.Round(time.Second), of, p.Good, rate, p.Sent-p.Good, p.Open)
		if p.NotSent > 0 {
			fmt.Fprintf(e.err, "  %d not sent", p.NotSent)
		}
	}
}

// look is the command that shows what is wrong with a target.
func (t *target) look() string {
	if t.scheme == "tcp" {
		return "nc -v " + t.host + " " + t.port
	}
	url := t.base() + strings.ReplaceAll(cmp.Or(t.path, "/"), "{key}", load.Key(0))
	if strings.ContainsAny(url, "&?*;$!()[]<>|\\\"`") {
		url = "'" + strings.ReplaceAll(url, "'", "%27") + "'"
	}
	return "curl -v " + url
}
