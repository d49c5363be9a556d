package recording

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"filippo.io/age"
	"github.com/oklog/ulid/v2"

	"github.com/hotline12345/gateway/internal/call"
)

// Open opens the sealed file of a finished recording: what is handed over.
func (r *Recorder) Open(id string) (io.ReadSeekCloser, error) {
	m, err := r.Manifest(id)
	if err != nil {
		return nil, err
	}
	if m.Ended.IsZero() {
		return nil, fmt.Errorf("%w: %s", ErrUnfinished, id)
	}
	return r.openAudio(m)
}

func (r *Recorder) openAudio(m Manifest) (*os.File, error) {
	id, err := parseID(m.ID)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(r.path(id, audioFile))
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	return f, nil
}

// WrappedKey is the recording's private key, sealed to the agency: what the receiver of a hand-over
// opens the recording and its facts with. [ErrKeyDestroyed] after deletion.
func (r *Recorder) WrappedKey(id string) ([]byte, error) {
	u, err := parseID(id)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(r.path(u, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrKeyDestroyed, id)
	}
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	return b, nil
}

// Verify compares a finished recording with its manifest: the hash of the file, every frame, and,
// with an agency's key, the audio inside. It returns nil when all is as it was sealed.
func (r *Recorder) Verify(ctx context.Context, id string, agency ...age.Identity) error {
	m, err := r.Manifest(id)
	if err != nil {
		return err
	}
	f, err := r.Open(id)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, err := hashOf(contextReader{ctx, f})
	if err != nil {
		return fmt.Errorf("recording: verify %s: %w", id, err)
	}
	var errs []error
	if sum != m.SHA256Sealed {
		errs = append(errs, fmt.Errorf("sha256_sealed is %s, the manifest says %s", sum, m.SHA256Sealed))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("recording: verify %s: %w", id, err)
	}
	seen := Manifest{ID: m.ID}
	if _, err := survey(contextReader{ctx, f}, &seen); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, differences(m, seen)...)
	if len(errs) == 0 && len(agency) > 0 {
		errs = append(errs, r.Export(ctx, io.Discard, id, agency...))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("recording: verify %s: %w", id, err)
	}
	return nil
}

func differences(m, seen Manifest) (errs []error) {
	if len(seen.Segments) != len(m.Segments) {
		errs = append(errs, fmt.Errorf("%d segments, the manifest lists %d", len(seen.Segments), len(m.Segments)))
	}
	for i := range min(len(seen.Segments), len(m.Segments)) {
		if seen.Segments[i] != m.Segments[i] {
			errs = append(errs, fmt.Errorf("segment %d, at %v, is not the one that was sealed",
				i, duration(m.Segments[i].Start)))
		}
	}
	if seen.SHA256Audio != m.SHA256Audio {
		errs = append(errs, fmt.Errorf("sha256_audio is %s, the manifest says %s", seen.SHA256Audio, m.SHA256Audio))
	}
	return errs
}

// Export decrypts a finished recording to w with an agency's key, as a stereo A-law WAV file.
func (r *Recorder) Export(ctx context.Context, w io.Writer, id string, agency ...age.Identity) error {
	key, err := r.WrappedKey(id)
	if err != nil {
		return err
	}
	f, err := r.Open(id)
	if err != nil {
		return err
	}
	defer f.Close()
	return Decrypt(ctx, w, f, key, agency...)
}

// Play is Export with the listening key; [ErrNoListeningKey] when there is none.
func (r *Recorder) Play(ctx context.Context, w io.Writer, id string) error {
	if len(r.listen) == 0 {
		return ErrNoListeningKey
	}
	return r.Export(ctx, w, id, r.listen...)
}

// Decrypt writes a sealed recording to w as a stereo A-law WAV file. It needs nothing but what a
// hand-over gives, the sealed file and the wrapped key, and an agency's key. What it has written is
// genuine up to an error: each frame is checked before its audio is written.
func Decrypt(ctx context.Context, w io.Writer, sealed io.ReadSeeker, wrappedKey []byte, agency ...age.Identity) error {
	key, err := unwrap(wrappedKey, agency...)
	if err != nil {
		return err
	}
	s, err := newScanner(sealed)
	if err != nil {
		return err
	}
	m := Manifest{ID: s.id.String()}
	if _, err := sealed.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if _, err := survey(contextReader{ctx, sealed}, &m); err != nil {
		return err
	}
	if _, err := sealed.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if _, err := w.Write(wavHeader(m.Samples)); err != nil {
		return fmt.Errorf("recording: export: %w", err)
	}
	if s, err = newScanner(contextReader{ctx, sealed}); err != nil {
		return err
	}
	return decryptFrames(w, s, key)
}

func decryptFrames(w io.Writer, s *scanner, key age.Identity) error {
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	var end int64
	for index := uint32(0); ; {
		f, err := s.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if f.kind != frameAudio {
			continue
		}
		audio, err := openFrame(f, s.id, index, key)
		if err != nil {
			return err
		}
		if err := writeSilence(out, f.start-end); err != nil {
			return fmt.Errorf("recording: export: %w", err)
		}
		if _, err := out.Write(audio); err != nil {
			return fmt.Errorf("recording: export: %w", err)
		}
		if got := sum.Sum(nil); !bytes.Equal(got, f.audio[:]) {
			return fmt.Errorf("recording: audio frame %d: the audio's hash is %s, the frame says %s",
				index, hex.EncodeToString(got), hex.EncodeToString(f.audio[:]))
		}
		end = f.start + int64(f.samples)
		index++
	}
}

func openFrame(f frame, id ulid.ULID, index uint32, key age.Identity) ([]byte, error) {
	plain, err := unseal(f.body, key)
	if err != nil {
		return nil, fmt.Errorf("recording: audio frame %d: %w", index, err)
	}
	return audioOf(plain, id, index, f)
}

func writeSilence(w io.Writer, n int64) error {
	for n *= 2; n > 0; n -= int64(len(quiet)) {
		if _, err := w.Write(quiet[:min(n, int64(len(quiet)))]); err != nil {
			return err
		}
	}
	return nil
}

// wavHeader heads a WAV file of format 6, WAVE_FORMAT_ALAW (RFC 2361 appendix A): two channels of
// 8 bits at 8,000 Hz, with the fact chunk that a compressed format must have.
func wavHeader(samples int64) []byte {
	data := uint32(2 * samples)
	le := binary.LittleEndian
	b := make([]byte, 0, 58)
	b = append(b, "RIFF"...)
	b = le.AppendUint32(b, 50+data)
	b = append(b, "WAVEfmt "...)
	b = le.AppendUint32(b, 18)
	b = le.AppendUint16(b, 6) // WAVE_FORMAT_ALAW
	b = le.AppendUint16(b, 2)
	b = le.AppendUint32(b, call.Rate)
	b = le.AppendUint32(b, 2*call.Rate)
	b = le.AppendUint16(b, 2) // bytes of a sample on both channels
	b = le.AppendUint16(b, 8) // bits
	b = le.AppendUint16(b, 0) // no extension
	b = append(b, "fact"...)
	b = le.AppendUint32(b, 4)
	b = le.AppendUint32(b, uint32(samples))
	b = append(b, "data"...)
	return le.AppendUint32(b, data)
}

// contextReader ends a long read with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
