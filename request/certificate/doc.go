// Package certificate says which certificate a door speaks TLS with: one of the user's files, one by ACME (RFC 8555) or one of
// the system's own authority. One machine has them issued and renews them ([Issuer]); they go to all nodes by control, sealed, and
// every node answers under every name, and to an authority that asks whether it does ([Shelf]).
package certificate
