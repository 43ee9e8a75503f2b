package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// counts say what repair has done, since the store was opened.
type counts struct {
	readRepairs atomic.Int64 // records given to owners that answered with an older one
	handedOver  atomic.Int64 // hints
	compared    atomic.Int64 // keys whose versions were exchanged by comparisons that this store began
	pulled      atomic.Int64 // records got by comparison
	pushed      atomic.Int64 // records given by comparison
}

// repairLoop hands hints over and compares this store with each peer, until ctx ends: at once, then
// every Options.Repair or so. While a partition is not complete here, or hints wait, it looks each second.
func (s *Store) repairLoop(ctx context.Context) {
	for {
		hasty := false
		for _, peer := range s.o.Cluster.Peers() {
			err := s.repairWith(ctx, peer)
			hasty = hasty || err != nil || s.hints.waiting(peer) > 0
			if err != nil && ctx.Err() == nil {
				s.log.Debug("not compared", "peer", peer, "err", err)
			}
		}
		if err := errors.Join(s.disowned(), s.dropHints(s.o.Cluster.Peers())); err != nil {
			s.log.Warn("what is no longer ours is not forgotten", "err", err)
		}
		wait := s.o.Repair/2 + rand.N(s.o.Repair) // not all at once
		if hasty || !s.settled() {
			wait = min(wait, time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// settled says that this store's copy of all that it owns is complete.
func (s *Store) settled() bool {
	for p := range s.o.Cluster.Partitions() {
		if s.owns(p) && !s.complete(p) {
			return false
		}
	}
	return true
}

// repairWith hands a peer its hints and then makes both alike in what both own.
func (s *Store) repairWith(ctx context.Context, peer string) error {
	if err := s.handOver(ctx, peer); err != nil {
		return err
	}
	// While somebody may still order by owners of before, what is compared may not be all that was acknowledged.
	counts := s.o.Lease == nil || s.o.Lease.Settled()
	shared := s.shared(peer)
	if len(shared) == 0 {
		return nil
	}
	groups, whole, err := s.callTree(ctx, peer, shared, 0, nil)
	if err != nil {
		return err
	}
	if len(groups) != fan || len(whole) != len(shared) {
		return fmt.Errorf("%w: %d groups", errRecord, len(groups))
	}
	mine := s.tree.groups(shared)
	var alike []int // and whole at the peer or not
	var bits []byte
	for i, p := range shared {
		if mine[p%fan] == groups[p%fan] {
			alike, bits = append(alike, p), append(bits, whole[i])
		}
	}
	if counts {
		if err := s.compared(peer, alike, bits); err != nil {
			return err
		}
	}
	for g := range fan {
		if mine[g] == groups[g] {
			continue
		}
		if err := s.repairGroup(ctx, peer, shared, g, whole, counts); err != nil {
			return err
		}
	}
	return nil
}

// repairGroup compares the partitions of a group that differs, then the leaves of those that do, then the keys
// of the leaves that do, and exchanges the records of which one side has none or an older version. counts says that the
// partitions are complete here when they were at the peer.
func (s *Store) repairGroup(ctx context.Context, peer string, shared []int, g int, whole []byte, counts bool) error {
	var of, differ []int
	var bits []byte
	for i, p := range shared {
		if p%fan == g {
			of, bits = append(of, p), append(bits, whole[i])
		}
	}
	theirs, _, err := s.callTree(ctx, peer, shared, 1, []int{g})
	if err != nil {
		return err
	}
	if len(theirs) != len(of) {
		return fmt.Errorf("%w: %d partitions", errRecord, len(theirs))
	}
	mine := s.tree.of(of)
	for i, p := range of {
		if mine[i] != theirs[i] {
			differ = append(differ, p)
		}
	}
	if err := s.repairPartitions(ctx, peer, shared, differ); err != nil {
		return err
	}
	if !counts {
		return nil
	}
	return s.compared(peer, of, bits)
}

// repairPartitions makes partitions alike.
func (s *Store) repairPartitions(ctx context.Context, peer string, shared, partitions []int) error {
	if len(partitions) == 0 {
		return nil
	}
	theirs, _, err := s.callTree(ctx, peer, shared, 2, partitions)
	if err != nil {
		return err
	}
	if len(theirs) != fan*len(partitions) {
		return fmt.Errorf("%w: %d leaves", errRecord, len(theirs))
	}
	var leaves []leaf
	for i, p := range partitions {
		for n, mine := range s.tree.leavesOf(p) {
			if mine != theirs[fan*i+n] {
				leaves = append(leaves, leaf{p, n})
			}
		}
	}
	if len(leaves) == 0 {
		return nil // a write came between
	}
	for len(leaves) > 0 { // each answer is of as many as fit into a message
		have, n, err := s.callKeys(ctx, peer, leaves)
		if err != nil {
			return err
		}
		if err := s.exchange(ctx, peer, have, leaves[:n]); err != nil {
			return err
		}
		leaves = leaves[n:]
	}
	return nil
}

// exchange gets and gives what differs below leaves, of which a peer has these keys.
func (s *Store) exchange(ctx context.Context, peer string, have []held, leaves []leaf) error {
	own, _, err := s.keysOf(leaves, math.MaxInt)
	if err != nil {
		return err
	}
	s.counts.compared.Add(int64(len(have)))
	var pull, push []string
	versions := map[string]Version{}
	for _, h := range have {
		versions[h.key] = h.version
	}
	for _, h := range own {
		theirs, ok := versions[h.key]
		switch delete(versions, h.key); {
		case !ok || theirs.Compare(h.version) < 0:
			push = append(push, h.key)
		case theirs.Compare(h.version) > 0:
			pull = append(pull, h.key)
		}
	}
	for _, h := range have {
		if _, missing := versions[h.key]; missing {
			pull = append(pull, h.key)
		}
	}
	if err := s.pull(ctx, peer, pull); err != nil {
		return err
	}
	return s.push(ctx, peer, push)
}

func (s *Store) pull(ctx context.Context, peer string, keys []string) error {
	for len(keys) > 0 {
		got, err := s.callPull(ctx, peer, keys[:min(len(keys), maxPush)])
		if err != nil {
			return err
		}
		if len(got) == 0 {
			return nil // gone meanwhile
		}
		if err := s.takeAll(got); err != nil {
			return err
		}
		s.counts.pulled.Add(int64(len(got)))
		i := 0
		for i < len(keys) && keys[i] != got[len(got)-1].key { // what came before it was sent, or is no more
			i++
		}
		keys = keys[min(i+1, len(keys)):]
	}
	return nil
}

func (s *Store) push(ctx context.Context, peer string, keys []string) error {
	for len(keys) > 0 {
		var batch []entry
		size := 0
		for len(keys) > 0 && len(batch) < maxPush && size < maxBytes {
			r, err := s.disk.get(keys[0])
			if err != nil {
				return err
			}
			if r.version.Clock != 0 {
				batch, size = append(batch, entry{keys[0], r}), size+len(r.value)
			}
			keys = keys[1:]
		}
		if err := s.callPush(ctx, peer, batch); err != nil {
			return err
		}
		s.counts.pushed.Add(int64(len(batch)))
	}
	return nil
}

// shared are the partitions that this store and a peer both own, in order.
func (s *Store) shared(peer string) (all []int) {
	for p := range s.o.Cluster.Partitions() {
		mine, theirs := false, false
		for _, o := range s.o.Cluster.Owners(p) {
			mine, theirs = mine || o == s.o.Name, theirs || o == peer
		}
		if mine && theirs {
			all = append(all, p)
		}
	}
	return all
}

// viewOf is a hash of partitions, to see whether two stores mean the same ones.
func viewOf(shared []int) uint64 {
	h := fnv.New64a()
	for _, p := range shared {
		_, _ = h.Write([]byte{byte(p >> 8), byte(p)}) // never fails
	}
	return h.Sum64()
}

// callTree asks a peer for digests: level 0, of all groups; 1, of the partitions of a group; 2, of the leaves of
// partitions. At level 0 it also says of which partitions its copy is complete.
func (s *Store) callTree(ctx context.Context, peer string, shared []int, level int, at []int) (all []digest, whole []byte, err error) {
	ctx, cancel := s.callContext(ctx)
	defer cancel()
	q := treeQuestion{s.o.Name, viewOf(shared), level, at}
	out, err := s.call(ctx, peer, pathTree, 0, q.append(nil))
	if err != nil {
		return nil, nil, err
	}
	return parseTree(out)
}

// treeQuestion is what a store asks of another's tree.
type treeQuestion struct {
	asker string
	view  uint64 // [viewOf] what both own
	level int
	at    []int // a group, or partitions
}

func (q *treeQuestion) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, byte(q.level)), q.view)
	b = append(append(b, byte(len(q.asker))), q.asker...)
	for _, p := range q.at {
		b = binary.BigEndian.AppendUint16(b, uint16(p))
	}
	return b
}

func parseTreeQuestion(b []byte) (q treeQuestion, err error) {
	if len(b) < 10 || b[0] > 2 || len(b) < 10+int(b[9]) {
		return q, fmt.Errorf("%w: a question of %d bytes", errRecord, len(b))
	}
	q.level, q.view = int(b[0]), binary.BigEndian.Uint64(b[1:])
	q.asker, b = string(b[10:10+int(b[9])]), b[10+int(b[9]):]
	if len(b)%2 != 0 || len(b) > 2<<10 || q.level == 1 && len(b) != 2 || q.level == 0 && len(b) != 0 {
		return q, fmt.Errorf("%w: a question at level %d", errRecord, q.level)
	}
	for ; len(b) > 0; b = b[2:] {
		q.at = append(q.at, int(binary.BigEndian.Uint16(b)))
	}
	return q, nil
}

func (s *Store) serveTree(body []byte, _ uint64) ([]byte, error) {
	q, err := parseTreeQuestion(body)
	if err != nil {
		return nil, err
	}
	shared := s.shared(q.asker)
	if s.tree == nil || viewOf(shared) != q.view {
		return nil, errViews
	}
	var of []int
	switch q.level {
	case 0:
		return appendTree(nil, s.tree.groups(shared), s.bits(shared)), nil
	case 1:
		for _, p := range shared {
			if p%fan == q.at[0] {
				of = append(of, p)
			}
		}
		return appendTree(nil, s.tree.of(of), nil), nil
	}
	var all []digest
	for _, p := range q.at {
		if p >= s.tree.partitions {
			return nil, fmt.Errorf("%w: partition %d", errRecord, p)
		}
		all = append(all, s.tree.leavesOf(p)...)
	}
	return appendTree(nil, all, nil), nil
}

// appendTree is the number of digests, the digests, and a byte a partition.
func appendTree(b []byte, all []digest, whole []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, d := range all {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, d[0]), d[1])
	}
	return append(b, whole...)
}

func parseTree(b []byte) (all []digest, whole []byte, err error) {
	n, b, err := cutUvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > 1<<16 || uint64(len(b)) < 16*n {
		return nil, nil, fmt.Errorf("%w: %d digests", errRecord, n)
	}
	for ; n > 0; n-- {
		all = append(all, digest{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])})
		b = b[16:]
	}
	for _, w := range b {
		if w > 1 {
			return nil, nil, fmt.Errorf("%w: neither whole nor not", errRecord)
		}
	}
	return all, b, nil
}

// leaf is one of a partition.
type leaf struct{ partition, n int }

// callKeys asks for the keys below leaves. The answer is of the first n of them.
func (s *Store) callKeys(ctx context.Context, peer string, leaves []leaf) (all []held, n int, err error) {
	ctx, cancel := s.callContext(ctx)
	defer cancel()
	var body []byte
	for _, l := range leaves {
		body = append(body, leafKey(l.partition, l.n)...)
	}
	out, err := s.call(ctx, peer, pathKeys, 0, body)
	if err != nil {
		return nil, 0, err
	}
	done, out, err := cutUvarint(out)
	if err != nil || done < 1 || done > uint64(len(leaves)) {
		return nil, 0, fmt.Errorf("%w: keys of %d leaves of %d", errRecord, done, len(leaves))
	}
	all, err = parseHeld(out)
	return all, int(done), err
}

func parseLeaves(b []byte) (all []leaf, err error) {
	if len(b)%leafBytes != 0 {
		return nil, fmt.Errorf("%w: leaves", errRecord)
	}
	for ; len(b) > 0; b = b[leafBytes:] {
		all = append(all, leaf{int(binary.BigEndian.Uint16(b)), int(b[2])})
	}
	return all, nil
}

func (s *Store) serveKeys(body []byte, _ uint64) (out []byte, err error) {
	leaves, err := parseLeaves(body)
	if err != nil {
		return nil, err
	}
	all, n, err := s.keysOf(leaves, maxBytes)
	out = binary.AppendUvarint(nil, uint64(n))
	for _, h := range all {
		out = h.append(out)
	}
	return out, err
}

// keysOf are the keys below the first n leaves, with their versions: as many leaves as take so many bytes, and
// one at least.
func (s *Store) keysOf(leaves []leaf, most int) (all []held, n int, err error) {
	err = s.disk.read(func(tx *bbolt.Tx) error {
		c, size := tx.Bucket(bucketIndex).Cursor(), 0
		for _, l := range leaves {
			if size > most {
				return nil
			}
			prefix := leafKey(l.partition, l.n)
			for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
				version, _, err := cutVersion(v)
				if err != nil {
					return err
				}
				all = append(all, held{key: string(k[leafBytes:]), version: version})
				size += len(k) + len(v) + 8
			}
			n++
		}
		return nil
	})
	return all, n, err
}
