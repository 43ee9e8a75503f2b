package launch

import "sync"

// news tells whoever waits that something changed.
type news struct {
	mu sync.Mutex
	ch chan struct{} // closed by the next tell
}

func (n *news) init() { n.ch = make(chan struct{}) }

func (n *news) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ch
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.ch)
	n.ch = make(chan struct{})
}
