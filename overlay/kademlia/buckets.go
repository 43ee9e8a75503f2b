package kademlia

import (
	"bytes"
	"encoding/binary"
	"slices"

	"servent/peer"
)

// bucket are a slot's contacts that share so many bits with it.
func (k *Kademlia) bucket(self peer.Slot, b int) []peer.Peer {
	at := int(self)*k.o.Buckets + b
	return k.contacts[at*k.o.K:][:k.counts[at]]
}

// Table are a slot's contacts.
func (k *Kademlia) Table(self peer.Slot) (all []peer.Peer) {
	for b := range k.o.Buckets {
		all = append(all, k.bucket(self, b)...)
	}
	return all
}

func (a act) bucketOf(p peer.Peer) int { return min(shared(a.env.ID(p), a.id), a.k.o.Buckets-1) }

// depth is the nearest bucket that has a contact, or -1.
func (a act) depth() int {
	for b := a.k.o.Buckets - 1; b >= 0; b-- {
		if a.k.counts[int(a.self)*a.k.o.Buckets+b] > 0 {
			return b
		}
	}
	return -1
}

// remove takes a peer out of a bucket.
func (k *Kademlia) remove(self peer.Slot, b int, p peer.Peer) bool {
	at, bucket := int(self)*k.o.Buckets+b, k.bucket(self, b)
	i := slices.Index(bucket, p)
	if i < 0 {
		return false
	}
	copy(bucket[i:], bucket[i+1:])
	k.counts[at]--
	low := uint32(1)<<i - 1
	k.stale[at] = k.stale[at]&low | k.stale[at]>>1&^low
	return true
}

// add puts a peer at a bucket's end, if there is room.
func (k *Kademlia) add(self peer.Slot, b int, p peer.Peer) bool {
	at := int(self)*k.o.Buckets + b
	if int(k.counts[at]) == k.o.K {
		return false
	}
	k.contacts[at*k.o.K+int(k.counts[at])] = p
	k.counts[at]++
	return true
}

// hope takes a peer that has not been heard of, if there is room: it may be dead.
func (a act) hope(p peer.Peer) {
	if b := a.bucketOf(p); !slices.Contains(a.k.bucket(a.self, b), p) {
		a.k.add(a.self, b, p)
	}
}

// heard is a sign of life (§2.2): the peer moves to the end of its bucket. When that is full, the one that was heard of
// longest ago is asked whether it lives, and only if not makes room: old contacts are worth more than new ones.
func (a act) heard(p peer.Peer) {
	id := a.env.ID(p)
	if p == a.me || id == a.id {
		return
	}
	b := min(shared(id, a.id), a.k.o.Buckets-1)
	a.k.remove(a.self, b, p)
	n := a.n
	if a.k.add(a.self, b, p) || n.ping != 0 || n.pinging != 0 && a.now-n.pinging < second {
		return // there is room, or it was asked lately: strangers shall not make a busy node ask all the time (§4.1)
	}
	n.pinging = a.now
	n.pinged, n.waits, n.ping = a.k.bucket(a.self, b)[0], p, peer.Tag(a.env.Rand())|1
	a.env.Send(n.pinged, peer.Event{Kind: ping, Tag: n.ping})
	a.env.After(a.wait(), peer.Event{Kind: silent, Tag: n.ping})
}

// evict gives the place of who did not answer to who waits for it.
func (a act) evict() {
	n := a.n
	old, next := n.pinged, n.waits
	n.ping, n.pinged, n.waits = 0, peer.Nobody, peer.Nobody
	a.k.remove(a.self, a.bucketOf(old), old)
	a.hope(next)
}

func (a act) onPong(ev *peer.Event) {
	if i := slices.Index(a.n.watched, ev.From); i >= 0 && ev.Tag == a.n.watch {
		a.n.watched = slices.Delete(a.n.watched, i, i+1)
		if ev.Flags&out != 0 {
			a.missed(ev.From, true)
		} else {
			a.heard(ev.From)
		}
		return
	}
	if n := a.n; ev.Tag != n.ping || ev.Tag == 0 || ev.From != n.pinged {
		return // late, doubled or made up
	} else if ev.Flags&out != 0 {
		a.evict()
		return
	}
	a.n.ping, a.n.pinged, a.n.waits = 0, peer.Nobody, peer.Nobody
	a.heard(ev.From)
}

// watch asks the contact of each bucket that was heard of longest ago whether it lives. A bucket without any is a subtree
// whose keys are this node's or its neighbours' from then on.
func (a act) watch() {
	n := a.n
	for _, p := range n.watched {
		a.missed(p, false)
	}
	n.watched, n.watch = n.watched[:0], peer.Tag(a.env.Rand())|1
	for b := range a.k.o.Buckets {
		if bucket := a.k.bucket(a.self, b); len(bucket) > 0 {
			n.watched = append(n.watched, bucket[0])
			a.env.Send(bucket[0], peer.Event{Kind: ping, Tag: n.watch})
		}
	}
	a.env.After(a.k.o.Watch-int64(a.env.Rand()%uint64(a.k.o.Watch/8+1)), peer.Event{Kind: watch, Tag: n.watch})
}

// missed notes that a peer did not answer; after the second time in a row, or when it says so itself, it is left out.
func (a act) missed(p peer.Peer, sure bool) {
	b := a.bucketOf(p)
	at := int(a.self)*a.k.o.Buckets + b
	i := slices.Index(a.k.bucket(a.self, b), p)
	if i < 0 {
		return
	}
	if sure || a.k.stale[at]>>i&1 == 1 {
		a.k.remove(a.self, b, p)
		return
	}
	a.k.stale[at] |= 1 << i
}

// wait is how long an answer may take.
func (a act) wait() int64 {
	if !a.n.rtt.Seen() {
		return a.k.o.FirstWait
	}
	return a.n.rtt.Wait(a.k.o.Timeout)
}

// candidate is a member with its distance.
type candidate struct {
	who peer.Peer
	far uint64 // the first 64 bits of the distance
	id  peer.ID
}

func distance(a, b peer.ID) uint64 {
	return binary.BigEndian.Uint64(a[:]) ^ binary.BigEndian.Uint64(b[:])
}

// order sorts by distance. Those whose first 64 bits are the same, which only a liar makes, by identifier.
func order(all []candidate) {
	slices.SortFunc(all, func(x, y candidate) int {
		switch {
		case x.far < y.far:
			return -1
		case x.far > y.far:
			return 1
		}
		return bytes.Compare(x.id[:], y.id[:])
	})
}

// nearest are the K known members nearest to a key, but one. A contact in the bucket of the key's own subtree is nearer
// than any in a bucket beyond, those are nearer than this node's other ones, the higher the bucket the nearer.
func (a act) nearest(into []candidate, key peer.ID, but peer.Peer) []candidate {
	first := min(shared(key, a.id), a.k.o.Buckets-1)
	group := func(b int) {
		for _, p := range a.k.bucket(a.self, b) {
			if p != but && p != a.me {
				id := a.env.ID(p)
				into = append(into, candidate{p, distance(id, key), id})
			}
		}
	}
	group(first)
	if len(into) < a.k.o.K {
		for b := first + 1; b < a.k.o.Buckets; b++ { // all of them are equally many bits away
			group(b)
		}
	}
	for b := first - 1; b >= 0 && len(into) < a.k.o.K; b-- {
		group(b)
	}
	order(into)
	return into[:min(len(into), a.k.o.K)]
}
