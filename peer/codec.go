package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

const (
	MaxDatagram = 1200 // bytes of an encoded message: below what any path's MTU leaves, with a seal around it
	MaxAddress  = 64   // bytes of an address

	version = 1
)

// What stands in a datagram beside the fixed part.
const (
	hasKey = 1 << iota
	hasNum
	hasAll = hasKey | hasNum
)

// Book is what the codec asks of a driver: peers are numbers here, and an ID and an address on the wire.
type Book interface {
	ID(Peer) ID
	Address(Peer) Address
	// Intern returns the number of the peer with an address and ID. An error refuses the datagram.
	Intern(ID, Address) (Peer, error)
}

// Append adds a message from sender to dst:
//
//	version 1, kind 1, flags 1, has 1, hops 2, tag 4, sender's ID 20, [key 20], [num uvarint],
//	number of peers 1, {ID 20, length 1, address} …, data to the end
//
// Big-endian; has says whether key and num follow, which they do only when they are not zero, so that a
// message has one encoding. Whoever carries the datagram vouches for the sender's address, so it is not in it.
// The error says what does not fit.
func Append(dst []byte, book Book, sender Peer, ev *Event) ([]byte, error) {
	if ev.Kind < Travels {
		return dst, fmt.Errorf("encode message: kind %d does not travel", ev.Kind)
	}
	if len(ev.Peers) > 255 {
		return dst, fmt.Errorf("encode message: %d peers, want at most 255", len(ev.Peers))
	}
	start, has := len(dst), byte(0)
	if ev.Key != (ID{}) {
		has |= hasKey
	}
	if ev.Num != 0 {
		has |= hasNum
	}
	dst = append(dst, version, byte(ev.Kind), ev.Flags, has)
	dst = binary.BigEndian.AppendUint16(dst, ev.Hops)
	dst = binary.BigEndian.AppendUint32(dst, uint32(ev.Tag))
	id := book.ID(sender)
	dst = append(dst, id[:]...)
	if has&hasKey != 0 {
		dst = append(dst, ev.Key[:]...)
	}
	if has&hasNum != 0 {
		dst = binary.AppendUvarint(dst, ev.Num)
	}
	dst = append(dst, byte(len(ev.Peers)))
	for _, p := range ev.Peers {
		id, at := book.ID(p), book.Address(p)
		if len(at) == 0 || len(at) > MaxAddress {
			return dst[:start], fmt.Errorf("encode message: address of %d bytes, want 1 to %d", len(at), MaxAddress)
		}
		dst = append(append(append(dst, id[:]...), byte(len(at))), at...)
	}
	dst = append(dst, ev.Data...)
	if n := len(dst) - start; n > MaxDatagram {
		return dst[:start], fmt.Errorf("encode message: %d bytes, want at most %d", n, MaxDatagram)
	}
	return dst, nil
}

// Size is how many bytes [Append] makes of a message whose peers have addresses of so many bytes.
func Size(ev *Event, address int) int {
	n := 31 + len(ev.Peers)*(21+address) + len(ev.Data)
	if ev.Key != (ID{}) {
		n += len(ev.Key)
	}
	if ev.Num != 0 {
		n += (bits.Len64(ev.Num) + 6) / 7
	}
	return n
}

var errShort = errors.New("decode message: it is cut short")

// Decode reads a message that came from an address into ev, whose Peers it reuses and whose Data it borrows
// from b. ev.At is left alone. After an error ev is of no use, but peers may have been interned.
func Decode(b []byte, from Address, book Book, ev *Event) error {
	switch {
	case len(b) > MaxDatagram:
		return fmt.Errorf("decode message: %d bytes, want at most %d", len(b), MaxDatagram)
	case len(b) < 30:
		return errShort
	case b[0] != version:
		return fmt.Errorf("decode message: version %d, want %d", b[0], version)
	case Kind(b[1]) < Travels:
		return fmt.Errorf("decode message: kind %d does not travel", b[1])
	case b[3]&^hasAll != 0:
		return fmt.Errorf("decode message: unknown parts %#x", b[3])
	}
	has := b[3]
	ev.Kind, ev.Flags, ev.Hops, ev.Tag = Kind(b[1]), b[2], binary.BigEndian.Uint16(b[4:]), Tag(binary.BigEndian.Uint32(b[6:]))
	sender := ID(b[10:30])
	b = b[30:]
	ev.Key, ev.Num = ID{}, 0
	if has&hasKey != 0 {
		if len(b) < len(ev.Key) {
			return errShort
		}
		ev.Key, b = ID(b), b[len(ev.Key):]
		if ev.Key == (ID{}) {
			return errors.New("decode message: a key of zero is written out")
		}
	}
	if has&hasNum != 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n == 0 || size > 1 && b[size-1] == 0 {
			return errors.New("decode message: want a number above zero in its shortest form")
		}
		ev.Num, b = n, b[size:]
	}
	if len(b) < 1 {
		return errShort
	}
	peers := int(b[0])
	b = b[1:]
	var err error
	if ev.From, err = book.Intern(sender, from); err != nil {
		return fmt.Errorf("decode message: sender: %w", err)
	}
	ev.Peers = ev.Peers[:0]
	for range peers {
		if len(b) < 21 {
			return errShort
		}
		id, n := ID(b), int(b[20])
		b = b[21:]
		switch {
		case n == 0 || n > MaxAddress:
			return fmt.Errorf("decode message: address of %d bytes, want 1 to %d", n, MaxAddress)
		case len(b) < n:
			return errShort
		}
		p, err := book.Intern(id, Address(b[:n]))
		if err != nil {
			return fmt.Errorf("decode message: peer %s: %w", b[:n], err)
		}
		ev.Peers, b = append(ev.Peers, p), b[n:]
	}
	ev.Data = b
	return nil
}
