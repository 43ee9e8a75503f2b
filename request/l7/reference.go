package l7

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// serveReference is [Switch.Serve] by net/http, behind a [guard]: what the engine is tested against.
func (s *Switch) serveReference(ctx context.Context, ln net.Listener, h http.Handler) error {
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var open sync.WaitGroup // connections; hijacked ones too, which Shutdown does not know
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if r.Context().Value(guardKey{}).(*guard).hijacked.Load() {
					open.Done()
				}
			}()
			h.ServeHTTP(w, r)
		}),
		Protocols:         http1,
		MaxHeaderBytes:    maxHead,
		ReadHeaderTimeout: headWait,
		IdleTimeout:       idleWait,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withGuard,
		ConnState: func(c net.Conn, to http.ConnState) {
			switch to {
			case http.StateNew:
				open.Add(1)
			case http.StateHijacked:
				c.(*guard).hijacked.Store(true) // its handler counts it out
			case http.StateClosed:
				open.Done()
			}
		},
		ErrorLog: slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1) // buffered: the sender can always leave
	stop := context.AfterFunc(ctx, func() {
		patience, cancel := context.WithTimeout(base, grace)
		defer cancel()
		stopped <- srv.Shutdown(patience)
	})
	err := srv.Serve(guarded{ln})
	if stop() { // ctx still lives: the listener failed on its own
		err = fmt.Errorf("serve %s: %w", ln.Addr(), err)
	} else if err = <-stopped; errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("stop serving %s: requests were still open after %v", ln.Addr(), grace)
	}
	end()
	_ = srv.Close() // cuts what is left
	open.Wait()
	return err
}

// guarded puts a guard before every connection.
type guarded struct{ net.Listener }

func (l guarded) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &guard{Conn: c}, nil
}

type guardKey struct{}

func withGuard(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, guardKey{}, c)
}

// unguard lets a connection switch to another protocol.
func unguard(ctx context.Context) {
	if g, ok := ctx.Value(guardKey{}).(*guard); ok {
		g.off.Store(true)
	}
}
