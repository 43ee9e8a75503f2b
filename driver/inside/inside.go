// Package inside holds the drivers whose instances are handlers of the node's own process: [Files] serves
// a folder, [Origin] an HTTP server that runs elsewhere, [Builtin] a program that is handed in. They take no
// port and no process of their own.
// They never cache and never choose between instances: edge and request do.
// Start at [Files], [Origin] and [Builtin]; [driver.Host] makes instances of their handlers.
package inside
