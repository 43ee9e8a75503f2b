// Command split is one process of the application: split ROLE. It listens on $HOST:$PORT.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"servent/examples/split"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 2 {
		log.Fatal("want a role: front, middle, data, all, services, checks or prices")
	}
	h, err := split.New(os.Args[1], os.Getenv)
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", ln.Addr())
	if err := split.Serve(ctx, ln, h); err != nil {
		log.Fatal(err)
	}
}
