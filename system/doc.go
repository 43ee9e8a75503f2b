// Package system holds the words of Servent: what a user can ask for and what a fleet can say.
// System is the user's file, Plan is where it should run, Seen is what runs. Everything here is a
// value: no method blocks, opens or remembers anything, and the package imports nothing of Servent.
// Start at [System], then [Plan] and [Seen].
package system
