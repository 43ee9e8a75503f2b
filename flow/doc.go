// Package flow is the built-in orchestrator: it makes the steps of a flow, keeps each one's result on disk before the next begins, takes back what was
// done when one fails (a saga: Garcia-Molina and Salem, SIGMOD 1987), and goes on where it was after a crash. A step whose answer was lost is
// made again, with the same Idempotency-Key. Start at [Open]; run.go makes the steps, http.go is what clients see.
package flow
