// Package etcd is the control store of a fleet: etcd in a child process, or one that the user already has.
// It is the only importer of go.etcd.io. It never shares a process with its server, for etcd ends the
// process on some errors, and never opens a door that another user of the machine could use.
//
// Three parts: [Serve] is the server and owns the process that calls it; [Child] starts that process,
// keeps it alive and ends it; [Open] makes a [Store], the client of either kind of server. Start at [Child].
package etcd
