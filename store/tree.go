package store

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"sync"
)

// The tree has three levels of at most 64 children each: groups of partitions, partitions, leaves. At the
// leaves are keys with their versions. A digest is the sum of what lies below it (AdHash, Bellare and
// Micciancio, EUROCRYPT 1997), so a write changes three numbers and never reads its neighbours. It guards against
// loss, not against a peer that lies: peers are authenticated by the link.
const (
	fan       = 64 // leaves of a partition, and groups
	leafBytes = 3  // partition (2), leaf (1)
)

// digest is a sum modulo 2^64 in both halves.
type digest [2]uint64

func (d *digest) add(e digest) { d[0] += e[0]; d[1] += e[1] }
func (d *digest) sub(e digest) { d[0] -= e[0]; d[1] -= e[1] }

// digestOf is that of one key in one version.
func digestOf(key string, v Version) digest {
	b := binary.AppendUvarint(make([]byte, 0, len(key)+64), uint64(len(key)))
	sum := sha256.Sum256(appendVersion(append(b, key...), v))
	return digest{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])}
}

// tree is the digests in memory. It mirrors the index of the database as of the last commit.
type tree struct {
	partition  func(string) int
	partitions int

	mu     sync.RWMutex // guards what follows
	leaves []*[fan]digest
	sums   []digest // of a partition's leaves
}

func newTree(partition func(string) int, partitions int) *tree {
	return &tree{partition: partition, partitions: partitions, leaves: make([]*[fan]digest, partitions), sums: make([]digest, partitions)}
}

// leafOf is where a key hangs.
func (t *tree) leafOf(key string) (partition, leaf int) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	x := h.Sum64() * 0x9e3779b97f4a7c15
	return t.partition(key), int(x >> 58)
}

func leafKey(partition, leaf int) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, leafBytes+32), uint16(partition)), byte(leaf))
}

// touch takes committed changes in.
func (t *tree) touch(all []touch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range all {
		p, leaf := t.leafOf(c.key)
		var d digest
		if c.new.Clock != 0 {
			d.add(digestOf(c.key, c.new))
		}
		if c.old.Clock != 0 {
			d.sub(digestOf(c.key, c.old))
		}
		if t.leaves[p] == nil {
			t.leaves[p] = new([fan]digest)
		}
		t.leaves[p][leaf].add(d)
		t.sums[p].add(d)
	}
}

// groups sums the shared partitions by group; group g has those p with p % fan == g.
func (t *tree) groups(shared []int) []digest {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]digest, fan)
	for _, p := range shared {
		all[p%fan].add(t.sums[p])
	}
	return all
}

// of are the digests of partitions.
func (t *tree) of(partitions []int) []digest {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]digest, len(partitions))
	for i, p := range partitions {
		all[i] = t.sums[p]
	}
	return all
}

// leavesOf are the digests of a partition's leaves.
func (t *tree) leavesOf(p int) []digest {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.leaves[p] == nil {
		return make([]digest, fan)
	}
	all := *t.leaves[p]
	return all[:]
}
