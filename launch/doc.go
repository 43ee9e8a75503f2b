// Package launch makes one laptop into several nodes: it builds and bundles local files, starts a child
// process per node, holds the published ports and passes their connections to live nodes, keeps the
// admin door, and ends everything it started. It places nothing and switches nothing by itself.
// Start at [Run]; [Bundle] is the way of local files.
package launch
