// Command tokens is one member of the ring as a program of its own. It listens on $HOST:$PORT.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"servent/examples/tokens"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", ln.Addr())
	member := tokens.Member{Self: os.Getenv("SERVENT_INSTANCE"), Next: os.Getenv("SERVENT_NEXT")}
	if err := member.Serve(ctx, ln); err != nil {
		log.Fatal(err)
	}
}
