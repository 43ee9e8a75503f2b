package remote

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"servent/control"
	"servent/system"
)

// longestLine is one revision at its largest, as JSON.
const longestLine = 4 * control.MaxTxn

// Watch implements [control.Store]. It goes from server to server, each time on at the next revision; when
// none has said anything for twice Options.Silence it gives [control.ErrUnavailable].
func (s *Store) Watch(ctx context.Context, prefix string, from control.Rev, each func(control.Batch) error) error {
	w := watch{Store: s, prefix: prefix, next: from, each: each, heard: time.Now()}
	for {
		last := errNobody
		for _, server := range s.order() {
			if last = w.stream(ctx, server); w.failed != nil {
				return w.failed
			}
			if ctx.Err() != nil {
				return nil
			}
			if !errors.Is(last, control.ErrUnavailable) {
				return fmt.Errorf("watch %s from %d: %w", prefix, w.next, last)
			}
		}
		if ctx.Err() == nil && time.Since(w.heard) > 2*s.opts.Silence {
			return fmt.Errorf("watch %s: %w", prefix, last)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(between):
		}
	}
}

// watch is one Watch in progress.
type watch struct {
	*Store
	prefix string
	next   control.Rev // all before it was given; 0 until a watch from now has begun
	each   func(control.Batch) error
	failed error     // of each
	heard  time.Time // a server's last line
}

// stream gives what one server says until that ends, which is always an error.
func (w *watch) stream(ctx context.Context, server system.NodeID) error {
	body, err := json.Marshal(watchCall{w.prefix, w.next})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Until the first line a server has no longer than a call: another may be waiting to be asked.
	silence := time.AfterFunc(min(tryFor, w.opts.Silence), func() {
		cancel(fmt.Errorf("%w: %s: silent", control.ErrUnavailable, server))
	})
	defer silence.Stop()
	resp, _, err := w.post(ctx, server, "watch", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		silence.Stop() // each may take its time
		w.heard = time.Now()
		var line watchLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("%w: %s: read a line: %w", control.ErrUnavailable, server, err)
		}
		if line.Error != nil {
			return fmt.Errorf("%s: %w", server, line.Error.err())
		}
		w.last.Store(&server)
		if w.failed = w.give(ctx, line); w.failed != nil {
			return w.failed
		}
		silence.Reset(w.opts.Silence)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("%w: %s: the stream broke (%v)", control.ErrUnavailable, server, cmp.Or(lines.Err(), io.EOF))
}

// give hands a line's batch, or how far it got, to each. What was given before is never given again.
func (w *watch) give(ctx context.Context, line watchLine) error {
	b := control.Batch{Rev: line.Rev}
	if line.Batch != nil {
		b = *line.Batch
	}
	if ctx.Err() != nil || b.Rev < max(w.next, 1) || w.next == 0 && line.Batch == nil || b.Rev == math.MaxInt64 {
		return nil
	}
	w.next = b.Rev + 1
	w.saw(b.Rev)
	return w.each(b)
}
