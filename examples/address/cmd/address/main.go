// Command address is the address server, or with the word client its client, as a program of its own:
//
//	address [--delay 2s] [--every 2]          listens on $HOST:$PORT
//	address client [flags] lookup ada         calls 127.0.0.1:7008
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"servent/examples/address"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := serve
	if len(os.Args) > 1 && os.Args[1] == "client" {
		run = call
	}
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context) error {
	server, err := address.NewServer(os.Args[1:], os.Stderr)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		return err
	}
	log.Printf("listening on %s", ln.Addr())
	return server.Serve(ctx, ln)
}

func call(ctx context.Context) error {
	return address.Call(ctx, "127.0.0.1:7008", os.Args[2:], os.Stdout, os.Stderr)
}
