package examples

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"servent/examples/address"
	"servent/examples/counter"
	"servent/examples/increment"
	"servent/examples/order"
	"servent/examples/shortener"
	"servent/examples/split"
	"servent/examples/tokens"
)

// ErrUsage says that the arguments of [Run] were wrong.
var ErrUsage = address.ErrUsage

// Run is `servent example PROGRAM [ARG…]`: it runs one of the programs that are part of the binary until
// it is done or ctx ends. A server listens on $HOST:$PORT and says where on stderr.
func Run(ctx context.Context, program string, args []string, stdout, stderr io.Writer) error {
	return surroundings{os.Getenv, stdout, stderr}.run(ctx, program, args)
}

// surroundings are what a program has: HOST, PORT, SERVENT_… of the environment, and where it writes.
type surroundings struct {
	env            func(key string) string
	stdout, stderr io.Writer
}

func (o surroundings) run(ctx context.Context, program string, args []string) error {
	var serve func(context.Context, net.Listener) error
	switch program {
	case "increment":
		serve = increment.Serve
	case "counter":
		serve = counter.Serve
	case "tokens":
		member, err := tokens.New(o.env)
		if err != nil {
			return fmt.Errorf("%w: example tokens: %w", ErrUsage, err)
		}
		serve = member.Serve
	case "shortener":
		serve = shortener.New(o.env("SHORTENER_URL")).Serve
	case "split":
		role := strings.Join(args, " ")
		h, err := split.New(role, o.env)
		if err != nil {
			return fmt.Errorf("%w: example split: %w", ErrUsage, err)
		}
		serve, args = func(ctx context.Context, ln net.Listener) error { return split.Serve(ctx, ln, h) }, nil
	case "order":
		h, err := order.New(strings.Join(args, " "))
		if err != nil {
			return fmt.Errorf("%w: example order: %w", ErrUsage, err)
		}
		serve, args = func(ctx context.Context, ln net.Listener) error { return order.Serve(ctx, ln, h) }, nil
	case "address":
		server, err := address.NewServer(args, o.stderr)
		if err != nil {
			return err
		}
		serve, args = server.Serve, nil
	case "address-client":
		return address.Call(ctx, "127.0.0.1:7008", args, o.stdout, o.stderr)
	default:
		return fmt.Errorf("%w: want one of increment, counter, shortener, address, address-client, tokens, split, order; have %q", ErrUsage, program)
	}
	if len(args) > 0 {
		return fmt.Errorf("%w: example %s takes none, have %q", ErrUsage, program, strings.Join(args, " "))
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(o.env("HOST"), o.env("PORT")))
	if err != nil {
		return fmt.Errorf("example %s: %w", program, err)
	}
	fmt.Fprintf(o.stderr, "listening on %s\n", ln.Addr())
	return serve(ctx, ln)
}
