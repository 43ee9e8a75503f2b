// Package store is the built-in key-value database: what `builtin: kv` runs. One [Store] is one instance on
// one folder: records in bbolt, written by group commit and acknowledged once they are on the disk. With a
// [Cluster] it keeps copies of each key at the key's owners, reads and writes by the rule one, quorum or all,
// and repairs what they missed; with a [Lease] one owner orders the writes of a partition, and only then is
// there compare-and-set.
//
// It dials nobody and knows no plan: who owns a key, how a peer is reached and who holds a lease are three
// small interfaces that package node fills in.
//
// Sources: hybrid logical clocks (Kulkarni et al., OPODIS 2014); quorums with write-back on reads (Attiya,
// Bar-Noy, Dolev, J. ACM 1995); hinted hand-off, read repair and hash trees (DeCandia et al., SOSP 2007,
// §4.5–4.7), but that a hint never counts towards a quorum; fencing (Gray and Cheriton's leases, SOSP 1989, with a
// term in every version).
//
// Start at [Open] and [Store.ServeHTTP]; coordinate.go is how a request becomes calls to owners, disk.go how a
// write becomes durable, repair.go how two stores become alike.
package store
