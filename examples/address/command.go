package address

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// ErrUsage says that a command line was wrong; what is right has been printed.
var ErrUsage = errors.New("wrong arguments")

// NewServer makes the server that a command line asks for: [--delay 2s] [--every 2].
func NewServer(args []string, stderr io.Writer) (*Server, error) {
	s, flags := &Server{}, flags("address", "", stderr)
	flags.DurationVar(&s.Delay, "delay", 0, "hold an answer back so long after the work is done")
	flags.IntVar(&s.Every, "every", 1, "hold back only the first of so many answers")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || s.Delay < 0 || s.Every < 1 {
		return nil, misused(flags, "want --delay of at least 0s, --every of at least 1 and nothing else")
	}
	return s, nil
}

// Call makes the call that a command line asks for and prints its answer, an address a line.
// server is where to call when no --server is given.
func Call(ctx context.Context, server string, args []string, stdout, stderr io.Writer) error {
	c, flags := &Client{}, flags("address-client", "insert NAME ADDRESS | delete NAME | lookup NAME | stop", stderr)
	flags.StringVar(&c.Address, "server", server, "host:port of the server")
	flags.DurationVar(&c.Timeout, "timeout", 0, "of one try (default 1s)")
	flags.IntVar(&c.Retries, "retries", 0, "tries after the first; negative: none (default 2)")
	flags.StringVar((*string)(&c.Semantics), "semantics", string(AtMostOnce), strings.Join([]string{string(AtMostOnce), string(AtLeastOnce), string(Maybe)}, ", "))
	if err := parse(flags, args); err != nil {
		return err
	}
	switch c.Semantics {
	case AtMostOnce, AtLeastOnce, Maybe:
	default:
		return misused(flags, fmt.Sprintf("--semantics: want at-most-once, at-least-once or maybe, have %q", c.Semantics))
	}
	call, args := flags.Arg(0), flags.Args()
	var found []string
	var err error
	switch {
	case call == "insert" && len(args) == 3:
		err = c.Insert(ctx, args[1], args[2])
	case call == "delete" && len(args) == 2:
		found, err = c.Delete(ctx, args[1])
	case call == "lookup" && len(args) == 2:
		found, err = c.Lookup(ctx, args[1])
	case call == "stop" && len(args) == 1:
		err = c.Stop(ctx)
	default:
		return misused(flags, fmt.Sprintf("want one of the calls above, have %q", strings.Join(args, " ")))
	}
	if err != nil {
		return err
	}
	for _, address := range found {
		fmt.Fprintln(stdout, address)
	}
	return nil
}

func flags(name, calls string, stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintf(stderr, "usage: %s [flags] %s\n", name, calls)
		f.PrintDefaults()
	}
	return f
}

// parse prints the help that was asked for, and what is wrong, itself.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return nil
}

func misused(f *flag.FlagSet, what string) error {
	f.Usage()
	return fmt.Errorf("%w: %s", ErrUsage, what)
}
