package link

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// A packet is the receiver's number of the session, the packet's number in it, and the sealed payload:
//
//	0        8        16                      n-16     n
//	| lane   | number | encrypted payload     | tag    |
//
// The first 16 bytes are authenticated, too. The largest is 1,280 bytes with the headers of UDP and IPv6:
// what every IPv6 path carries whole (RFC 8200 §5).
const (
	headSize   = 16
	tagSize    = 16
	overhead   = headSize + tagSize
	packetSize = overhead + MaxDatagram
)

// lane is one direction of a session: from its sender, who counts, to its receiver, who knows it by number.
type lane struct {
	number uint64
	aead   cipher.AEAD
	iv     [12]byte
}

const laneSize = 8 + 32 + 12 // number, key, iv

// agree makes both lanes of what only the two ends of a TLS connection know (RFC 8446 §7.5). The cipher is
// AES-256-GCM, or ChaCha20-Poly1305 where TLS chose that because one of the machines has no AES.
func agree(state *tls.ConnectionState, dialled bool) (out, in lane, err error) {
	secret, err := state.ExportKeyingMaterial("EXPORTER-servent-datagram", nil, 2*laneSize)
	if err != nil {
		return lane{}, lane{}, fmt.Errorf("agree on keys: %w", err)
	}
	cipherOf := gcm
	if state.CipherSuite == tls.TLS_CHACHA20_POLY1305_SHA256 {
		cipherOf = chacha20poly1305.New
	}
	there, err := newLane(secret[:laneSize], cipherOf)
	if err != nil {
		return lane{}, lane{}, err
	}
	back, err := newLane(secret[laneSize:], cipherOf)
	if err != nil {
		return lane{}, lane{}, err
	}
	if dialled {
		return there, back, nil
	}
	return back, there, nil
}

func newLane(secret []byte, cipherOf func([]byte) (cipher.AEAD, error)) (lane, error) {
	l := lane{number: binary.BigEndian.Uint64(secret)}
	var err error
	l.aead, err = cipherOf(secret[8:40])
	copy(l.iv[:], secret[40:])
	return l, err
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// nonce is the iv with the packet's number in it, as in RFC 8446 §5.3. No number is used twice with a key.
func (l *lane) nonce(n uint64) []byte {
	nonce := l.iv
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^n)
	return nonce[:]
}

// seal appends packet n to an empty buffer with room for it.
func (l *lane) seal(buf []byte, n uint64, payload []byte) []byte {
	buf = binary.BigEndian.AppendUint64(buf, l.number)
	buf = binary.BigEndian.AppendUint64(buf, n)
	return l.aead.Seal(buf, l.nonce(n), payload, buf[:headSize])
}

// open appends the payload of a packet with number n to buf, or says that it was not made with this key.
func (l *lane) open(buf []byte, n uint64, packet []byte) ([]byte, error) {
	return l.aead.Open(buf, l.nonce(n), packet[headSize:], packet[:headSize])
}

var errNoPacket = errors.New("no packet of ours")

// readHead reads what stands in the clear. What it says is not to be believed before [lane.open] agrees.
func readHead(packet []byte) (number, n uint64, err error) {
	if len(packet) < overhead || len(packet) > packetSize {
		return 0, 0, errNoPacket
	}
	return binary.BigEndian.Uint64(packet), binary.BigEndian.Uint64(packet[8:]), nil
}

// window remembers the numbers of the packets that came, as far back as reach, in blocks of 64 that are
// reused round and round (RFC 6479). Numbers begin with 1.
type window struct {
	top    uint64
	blocks [64]uint64
}

// reach is how many packets one may be overtaken by.
const reach = (64 - 1) * 64

// seen says that a packet came already, or is too old to tell.
func (w *window) seen(n uint64) bool {
	switch {
	case n == 0:
		return true
	case n > w.top:
		return false
	case w.top-n >= reach:
		return true
	}
	return w.blocks[n/64%64]&(1<<(n%64)) != 0
}

// mark notes a packet that was not seen before.
func (w *window) mark(n uint64) {
	if n > w.top {
		for b := w.top/64 + 1; b <= n/64 && b <= w.top/64+64; b++ {
			w.blocks[b%64] = 0
		}
		w.top = n
	}
	w.blocks[n/64%64] |= 1 << (n % 64)
}
