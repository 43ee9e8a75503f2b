// Package admin is the one door through which a user, the command line and the console speak to a
// running system: HTTP and JSON, on a unix socket of the user's own and on loopback with a token.
// It reads views and writes what is wanted; it decides nothing and never touches request traffic.
// Start at [Door]; [Client] is the other side; docs/admin-api.md describes every answer.
package admin
