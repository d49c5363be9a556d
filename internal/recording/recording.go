package recording

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"github.com/oklog/ulid/v2"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// The bounds of marks; beyond them a mark is cut or dropped and counted.
const (
	maxMarks = 1000
	maxKind  = 32
	maxNote  = 512
)

// The states of a recording, for the race between a Start that gives up and a slow disk.
const (
	creating int32 = iota
	created
	abandoned
)

// Mark is an event in a recording. It lies in clear: it must hold no personal data.
type Mark struct {
	AtMS int64  `json:"at_ms"` // milliseconds from the start
	Kind string `json:"kind"`
	Note string `json:"note,omitempty"`
}

// recording is one call's recording. Audio comes in through sinks, waits under mu, and is sealed and
// written by one writer, which alone touches file.
type recording struct {
	r     *Recorder
	id    ulid.ULID
	key   *age.X25519Recipient
	start time.Time
	queue chan func()
	log   *slog.Logger
	state atomic.Int32
	dirty atomic.Bool // written since the last sync

	wrap string // the private key, until create has sealed it

	mu    sync.Mutex
	buf   stereo
	marks int
	ended bool
	// finishing leaves what is not cut yet to the end of the recording: a segment that the writer got after
	// it would find the file closed.
	finishing bool
	full      bool // max_length was reached
	counts    Counts

	file file

	sealed atomic.Pointer[session.Sealed] // the result of Finish
}

// Counts is how much went another way than it should.
type Counts struct {
	Late      int `json:"late_packets"`
	Dropped   int `json:"dropped_packets"`
	Reanchors int `json:"reanchors"`
	Lost      int `json:"lost_segments"`
	Overlong  int `json:"overlong_packets"`
}

var _ session.Recording = (*recording)(nil)

func newRecording(r *Recorder, id ulid.ULID, key *age.X25519Identity, f session.RecordingFacts) *recording {
	rec := &recording{
		r:     r,
		id:    id,
		key:   key.Recipient(),
		wrap:  key.String(),
		start: time.Now(),
		log:   r.log.With("call", f.CallID, "recording", id.String()),
	}
	rec.file.sealer.to = rec.key
	rec.file.manifest = Manifest{
		Format:     format,
		ID:         id.String(),
		Facts:      f,
		Began:      rec.start.UTC(),
		PublicKey:  key.Recipient().String(),
		Recipients: r.cfg.Recipients,
	}
	return rec
}

// ID is the recording's identity, a ULID.
func (rec *recording) ID() string { return rec.id.String() }

// Offset is the time since the start.
func (rec *recording) Offset() time.Duration { return time.Since(rec.start) }

// SealFacts encrypts personal data to the recording's key; [OpenFacts] reads it.
func (rec *recording) SealFacts(facts []byte) ([]byte, error) {
	b, err := seal(facts, rec.key)
	if err != nil {
		return nil, fmt.Errorf("recording: seal facts: %w", err)
	}
	return append(append([]byte(factsMagic), rec.id[:]...), b...), nil
}

// Mark notes an event. A recording keeps 1,000 marks; kinds longer than 32 bytes and notes longer
// than 512 are cut.
func (rec *recording) Mark(kind, note string) {
	m := Mark{AtMS: rec.Offset().Milliseconds(), Kind: cutText(kind, maxKind), Note: cutText(note, maxNote)}
	rec.mu.Lock()
	ok := !rec.ended && rec.marks < maxMarks
	if ok {
		rec.marks++
	}
	rec.mu.Unlock()
	if !ok || !rec.offer(func() { rec.writeMark(m) }) {
		rec.r.met.marksDropped.Inc()
	}
}

// offer gives the writer a job unless it has too many.
func (rec *recording) offer(job func()) bool {
	select {
	case rec.queue <- job:
		return true
	default:
		return false
	}
}

// cutReady hands what is ready to the writer, and never waits for it.
func (rec *recording) cutReady() {
	for {
		rec.mu.Lock()
		to := rec.buf.ready(samples(rec.Offset()))
		if rec.finishing || rec.ended || to == rec.buf.base {
			rec.mu.Unlock()
			return
		}
		seg := rec.buf.cut(to)
		offered := rec.offer(func() { rec.writeSegment(seg) }) // under mu: never behind the end of the recording
		rec.mu.Unlock()
		if !offered {
			rec.lost(nil)
		}
	}
}

// lost counts a segment that could not be written, and logs the first.
func (rec *recording) lost(err error) {
	rec.r.met.segments.WithLabelValues("lost").Inc()
	rec.mu.Lock()
	rec.counts.Lost++
	first := rec.counts.Lost == 1
	rec.mu.Unlock()
	if first {
		rec.log.Error("a recording loses audio", "err", err)
	}
}

// take ends the recording's audio and returns what was not handed to the writer yet.
func (rec *recording) take() []segment {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.ended = true
	var rest []segment
	for rec.buf.end() > rec.buf.base {
		rest = append(rest, rec.buf.cut(min(rec.buf.end(), rec.buf.base+segmentSamples)))
	}
	return rest
}

// Finish ends the audio and makes the recording durable. When ctx ends first the disk is slow: the
// work goes on, and Finish may be called again for its result. A second call returns what the first did.
func (rec *recording) Finish(ctx context.Context) (session.Sealed, error) {
	if s := rec.sealed.Load(); s != nil {
		return *s, nil
	}
	rec.mu.Lock()
	rec.finishing = true
	rec.mu.Unlock()
	done := make(chan error, 1)
	if err := rec.r.enqueue(ctx, rec.queue, func() { done <- rec.conclude() }); err != nil {
		return session.Sealed{}, err
	}
	err := ErrClosed
	select {
	case err = <-done:
	case <-ctx.Done():
		return session.Sealed{}, context.Cause(ctx)
	case <-rec.r.stopped:
		select {
		case err = <-done: // the last act of the writer
		default:
		}
	}
	if err != nil {
		return session.Sealed{}, err
	}
	return *rec.sealed.Load(), nil
}

// conclude is Finish as the writer does it.
func (rec *recording) conclude() error {
	if rec.sealed.Load() != nil {
		return nil
	}
	for _, seg := range rec.take() {
		rec.writeSegment(seg)
	}
	s, err := rec.close()
	if err != nil {
		rec.r.met.recordings.WithLabelValues("failed").Inc()
		return err
	}
	rec.sealed.Store(&s)
	rec.r.forget(rec)
	rec.r.met.recordings.WithLabelValues(resultOf(s)).Inc()
	return nil
}

func resultOf(s session.Sealed) string {
	if s.Partial {
		return "partial"
	}
	return "complete"
}

// Sink makes a sink for one tap of the caller's leg.
func (rec *recording) Sink() call.AudioSink { return &sink{rec: rec} }

// sink hears one tap. Its RTP clocks are its own; the audio is the recording's.
type sink struct {
	rec     *recording
	anchors [2]anchor
	closed  bool
}

func (s *sink) Write(track call.Track, rtpTime uint32, payload []byte) {
	if track != call.TrackIn && track != call.TrackOut || len(payload) == 0 {
		return
	}
	rec := s.rec
	arrival := samples(rec.Offset())
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if s.closed || rec.ended {
		return
	}
	if arrival >= samples(rec.r.cfg.MaxLength) {
		rec.full = true
		rec.counts.Overlong++
		rec.r.met.packets[overlong].Inc()
		return
	}
	pos, anew := s.anchors[track].place(rtpTime, len(payload), arrival)
	if anew {
		rec.counts.Reanchors++
		rec.r.met.reanchors.Inc()
	}
	f := rec.buf.put(track, pos, payload)
	rec.r.met.packets[f].Inc()
	switch f {
	case late:
		rec.counts.Late++
	case dropped:
		rec.counts.Dropped++
	default: // the manifest tells of what is missing alone
	}
}

func (s *sink) Gap(track call.Track) {
	if track != call.TrackIn && track != call.TrackOut {
		return
	}
	s.rec.mu.Lock()
	s.anchors[track].set = false
	s.rec.mu.Unlock()
}

func (s *sink) Close() {
	s.rec.mu.Lock()
	s.closed = true
	s.rec.mu.Unlock()
}

// cutText shortens s to n bytes without breaking a character.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
