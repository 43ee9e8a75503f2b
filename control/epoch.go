package control

// epochAt is the bit of a revision at which its epoch begins. With a thousand changes a second an epoch lasts two years, and what is made of revisions has
// room for 255 of them.
const epochAt = 36

// Epoch counts how often control was begun anew from a backup, before this revision. Such a beginning lifts revisions beyond all that any node can have seen of
// what was lost, so that fences go on growing and nobody takes an answer of the control before for a later one.
func (r Rev) Epoch() int64 { return int64(r >> epochAt) }

// NextEpoch is the first revision of the epoch after this one's.
func (r Rev) NextEpoch() Rev { return Rev(r.Epoch()+1) << epochAt }
