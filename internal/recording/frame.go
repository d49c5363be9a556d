package recording

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/oklog/ulid/v2"
)

// The measures of the file format; see the package's documentation.
const (
	magic       = "HOTLREC1"
	fileHeader  = len(magic) + 16
	frameHeader = 49
	frameCRC    = 4
	maxBody     = 64 << 10

	frameAudio = 'A'
	frameMark  = 'M'
)

// errTorn ends a file that a kill or a power loss cut.
var errTorn = errors.New("recording: the file ends within a frame")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is one frame of a sealed file.
type frame struct {
	kind    byte
	start   int64
	samples uint32
	audio   [32]byte
	body    []byte
}

func (f frame) encode() []byte {
	b := make([]byte, frameHeader, frameHeader+len(f.body)+frameCRC)
	b[0] = f.kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(f.body)))
	binary.BigEndian.PutUint64(b[5:], uint64(f.start))
	binary.BigEndian.PutUint32(b[13:], f.samples)
	copy(b[17:], f.audio[:])
	b = append(b, f.body...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (f frame) size() int64 { return int64(frameHeader + len(f.body) + frameCRC) }

// scanner reads the frames of a sealed file. Its offset is where the next frame begins.
type scanner struct {
	r      *bufio.Reader
	id     ulid.ULID
	offset int64
}

func newScanner(r io.Reader) (*scanner, error) {
	s := &scanner{r: bufio.NewReaderSize(r, 64<<10)}
	var head [fileHeader]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return nil, tornOr(err)
	}
	if string(head[:len(magic)]) != magic {
		return nil, errors.New("recording: not a sealed recording of version 1")
	}
	copy(s.id[:], head[len(magic):])
	s.offset = int64(fileHeader)
	return s, nil
}

// next returns the next frame, io.EOF after the last, or errTorn when what follows is no whole frame.
func (s *scanner) next() (frame, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return frame{}, io.EOF
		}
		return frame{}, tornOr(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	f := frame{
		kind:    head[0],
		start:   int64(binary.BigEndian.Uint64(head[5:])),
		samples: binary.BigEndian.Uint32(head[13:]),
		audio:   [32]byte(head[17:]),
	}
	if n > maxBody || f.start < 0 || f.samples > maxBody || f.kind != frameAudio && f.kind != frameMark {
		return frame{}, errTorn
	}
	rest := make([]byte, int(n)+frameCRC)
	if _, err := io.ReadFull(s.r, rest); err != nil {
		return frame{}, tornOr(err)
	}
	f.body = rest[:n:n]
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, f.body)
	if sum != binary.BigEndian.Uint32(rest[n:]) {
		return frame{}, errTorn
	}
	s.offset += f.size()
	return f, nil
}

// tornOr makes an early end of the file errTorn and leaves a fault of the disk what it is.
func tornOr(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTorn
	}
	return fmt.Errorf("recording: read: %w", err)
}

// plaintext is what an audio frame seals: the audio, bound to its place, so that no frame can be
// moved to another recording or another position.
func plaintext(id ulid.ULID, index uint32, start int64, audio []byte) []byte {
	b := make([]byte, 0, 28+len(audio))
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint32(b, index)
	b = binary.BigEndian.AppendUint64(b, uint64(start))
	return append(b, audio...)
}

// audioOf checks a frame's plaintext against its place and returns the audio in it.
func audioOf(plain []byte, id ulid.ULID, index uint32, f frame) ([]byte, error) {
	want := plaintext(id, index, f.start, nil)
	if !bytes.HasPrefix(plain, want) || len(plain)-len(want) != 2*int(f.samples) {
		return nil, fmt.Errorf("recording: audio frame %d was made for another place", index)
	}
	return plain[len(want):], nil
}
