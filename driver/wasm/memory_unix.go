//go:build unix

package wasm

import (
	"context"
	"syscall"

	"github.com/tetratelabs/wazero/experimental"
)

// small memories lie among Go's own; one that grows beyond is moved to pages of the kernel's: they grow in place, cost nothing until they
// are touched, and go back at once, without work for Go's collector, which all calls would do.
const modest = 1 << 20

// withMemory has modules that are made with ctx take their memory so.
func withMemory(ctx context.Context) context.Context {
	return experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(capacity, most uint64) experimental.LinearMemory {
		return &memory{most: most, own: make([]byte, 0, min(capacity, modest))}
	}))
}

// memory is that of one instance. Its methods are called one at a time.
type memory struct {
	most  uint64
	own   []byte // until it is more than modest
	pages []byte // all that it may ever have; nil: none yet
}

// Reallocate implements [experimental.LinearMemory]. Nil refuses.
func (m *memory) Reallocate(size uint64) []byte {
	if m.pages == nil && size <= modest {
		if size > uint64(cap(m.own)) {
			m.own = append(make([]byte, 0, min(2*size, modest)), m.own...)
		}
		m.own = m.own[:max(size, uint64(len(m.own)))] // it is zero beyond its length
		return m.own[:size]
	}
	if m.pages == nil {
		pages, err := syscall.Mmap(-1, 0, int(m.most), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			return nil
		}
		copy(pages, m.own)
		m.pages, m.own = pages, nil
	}
	if size > uint64(len(m.pages)) {
		return nil
	}
	return m.pages[:size]
}

// Free implements [experimental.LinearMemory].
func (m *memory) Free() {
	if m.pages != nil {
		_ = syscall.Munmap(m.pages) // they were mapped
		m.pages = nil
	}
}
