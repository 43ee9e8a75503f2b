package driver

import "bytes"

// Ending keeps the end of an output: the error of a command that failed needs its last line, see
// [Instance.Exec]. The zero Ending is empty. It is not for several goroutines at once.
type Ending struct{ kept []byte }

// Write implements [io.Writer]; it never fails.
func (e *Ending) Write(p []byte) (int, error) {
	const most = 4 << 10
	e.kept = append(e.kept, p...)
	if over := len(e.kept) - most; over > 0 {
		e.kept = append(e.kept[:0], e.kept[over:]...)
	}
	return len(p), nil
}

// Last is the last line that says something.
func (e *Ending) Last() string {
	text := bytes.TrimSpace(e.kept)
	return string(bytes.TrimSpace(text[bytes.LastIndexByte(text, '\n')+1:]))
}
