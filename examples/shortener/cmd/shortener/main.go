// Command shortener is the URL shortener as a program of its own. It listens on $HOST:$PORT.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"servent/examples/shortener"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ln, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", ln.Addr())
	if err := shortener.New(os.Getenv("SHORTENER_URL")).Serve(ctx, ln); err != nil {
		log.Fatal(err)
	}
}
