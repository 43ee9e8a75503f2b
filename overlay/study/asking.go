package study

import "servent/peer"

// asking counts the lookups, or searches, of a run.
type asking struct {
	begin int64 // they may start
	asked int
	open  int     // by askers that live
	opens []int32 // by slot
	gone  int     // their asker died
}

// due is when one of them begins.
func (w *world) due(i int) int64 {
	return w.begin + int64(float64(w.o.For)*float64(i)/float64(w.o.Lookups))
}

// locate gives the next one to a node.
func (w *world) locate(at int64, s peer.Slot, key peer.ID) {
	w.net.Command(at, s, peer.Event{Kind: peer.Locate, Tag: peer.Tag(w.asked + 1), Key: key})
	w.asked++
	w.open++
	w.opens[s]++
}

// answered counts an answer to a node, and says whether that node has asked in this life.
func (w *world) answered(s peer.Slot) bool {
	if w.opens[s] == 0 {
		return false
	}
	w.opens[s]--
	w.open--
	return true
}

// lose forgets what a node that has died had asked.
func (w *world) lose(s peer.Slot) {
	w.live--
	w.open -= int(w.opens[s])
	w.gone += int(w.opens[s])
	w.opens[s] = 0
}
