package route

import (
	"context"
	"errors"
	"testing"
	"time"

	"servent/system"
)

func TestTurns(t *testing.T) {
	var turns Turns
	first, err := turns.Take(t.Context(), "a", 1)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := turns.Take(t.Context(), "b", 0); err != nil {
		t.Errorf("another service waits: %v", err)
	} else {
		other()
	}
	late, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, ErrTurn)
	defer cancel()
	if _, err := turns.Take(late, "a", 1); !errors.Is(err, ErrTurn) {
		t.Errorf("a second one has its turn: %v", err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := turns.Take(gone, "a", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("who has left waits: %v", err)
	}
	next := make(chan error, 1)
	go func() {
		done, err := turns.Take(context.Background(), "a", 1)
		if err == nil {
			done()
		}
		next <- err
	}()
	at, _ := turns.lines.Load(system.ServiceName("a"))
	for at.(*line).waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := turns.Take(t.Context(), "a", 1); !errors.Is(err, ErrTurn) {
		t.Errorf("a line of one took two: %v", err)
	}
	first()
	if err := <-next; err != nil {
		t.Errorf("the turn did not come: %v", err)
	}
	if at.(*line).waiting.Load() != 0 {
		t.Error("somebody still waits")
	}
}
