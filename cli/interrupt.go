package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// interrupts makes the first Ctrl-C, SIGTERM or closed terminal the end of ctx and the second that of
// kill. The third ends the process, as if nobody listened.
func interrupts() (ctx context.Context, kill <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	second, came := make(chan struct{}), make(chan os.Signal, 2)
	signal.Notify(came, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup means it
		signal.Notify(came, syscall.SIGHUP)
	}
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer signal.Stop(came)
		for _, end := range []func(){cancel, func() { close(second) }} {
			select {
			case <-came:
				end()
			case <-over:
				return
			}
		}
	})
	return ctx, second, func() {
		close(over)
		wg.Wait()
		cancel()
	}
}

// unheard lets writes to a pipe that nobody reads any more fail, instead of ending the process: a system
// is not stopped by what became of its story.
func unheard() (stop func()) {
	never := make(chan os.Signal, 1) // whatever does not fit is dropped
	signal.Notify(never, syscall.SIGPIPE)
	return func() { signal.Stop(never) }
}
