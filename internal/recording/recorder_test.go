package recording

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

// kept records two seconds and returns the sealed recording.
func (d *desk) kept(t *testing.T) session.Sealed {
	t.Helper()
	rec := d.begin(t)
	b := tone(440, 4*call.Rate)
	speak(rec.Sink(), b, b, 0)
	return finish(t, rec)
}

func TestWatermarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(15)
		d := newDesk(t, func(_ *Config, dp *Deps) {
			dp.Space = func(string) (uint64, uint64, error) { return free.Load(), 100, nil }
		}).run(t)
		defer d.stop()
		if !d.Optional() {
			t.Error("at 15 % optional data stops")
		}
		rec := d.begin(t)
		free.Store(9)
		time.Sleep(spaceEvery + time.Second)
		if d.Optional() {
			t.Error("at 9 % optional data is kept")
		}
		finish(t, d.begin(t))
		free.Store(4)
		time.Sleep(spaceEvery)
		if _, err := d.Start(context.Background(), testFacts); !errors.Is(err, session.ErrNoSpace) {
			t.Errorf("at 4 %%: %v", err)
		}
		finish(t, rec) // what is under way is finished
		free.Store(50)
		time.Sleep(spaceEvery)
		finish(t, d.begin(t))
		if n := testutil.ToFloat64(d.met.recordings.WithLabelValues("no_space")); n != 1 {
			t.Errorf("%v calls without space are counted", n)
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, func(c *Config, _ *Deps) { c.MaxOpen, c.MaxLength = 1, time.Minute }).run(t)
		rec := d.begin(t)
		if _, err := d.Start(context.Background(), testFacts); !errors.Is(err, ErrTooMany) {
			t.Errorf("a second recording: %v", err)
		}
		sink := rec.Sink()
		p := tone(440, 160)
		sink.Write(call.TrackIn, 0, p)
		time.Sleep(time.Minute)
		sink.Write(call.TrackIn, 60*call.Rate, p)
		for range maxMarks + 5 {
			rec.Mark(strings.Repeat("k", 100), strings.Repeat("字", 1000))
			time.Sleep(time.Millisecond)
		}
		s := finish(t, rec)
		if !s.Partial || s.Duration != 20*time.Millisecond {
			t.Errorf("beyond max_length: %+v", s)
		}
		m, err := d.Manifest(s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if m.Why != "max_length" || len(m.Marks) != maxMarks || len(m.Marks[0].Kind) != maxKind || len(m.Marks[0].Note) != maxNote-maxNote%3 {
			t.Errorf("why %q, %d marks, note of %d bytes", m.Why, len(m.Marks), len(m.Marks[0].Note))
		}
		d.stop()
		if _, err := d.Start(context.Background(), testFacts); !errors.Is(err, ErrClosed) {
			t.Errorf("after Run: %v", err)
		}
	})
}

func TestDiskThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil) // nothing runs: as if the disk hung
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if _, err := d.Start(ctx, testFacts); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start: %v", err)
		}
		d.run(t)
		time.Sleep(time.Second)
		if found, err := d.Recover(context.Background()); err != nil || len(found) != 0 {
			t.Errorf("what nobody waited for is found: %v, %v", found, err)
		}
		d.stop()
	})
}

func TestFinishThatGivesUpIsFinishedAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		rec := d.begin(t).(*recording)
		b := tone(440, call.Rate)
		speak(rec.Sink(), b, b, 0)
		rec.queue <- func() { panic("a fault of ours") }
		hung := make(chan struct{})
		rec.queue <- func() { <-hung }
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := rec.Finish(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the disk hangs: %v", err)
		}
		close(hung)
		synctest.Wait()
		if d.isOpen(rec.ID()) {
			t.Error("nobody finishes it")
		}
		if s := finish(t, rec); s.Duration != time.Second || s.Partial {
			t.Errorf("sealed %+v", s)
		}
	})
}

func TestStopBeforeFinishLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		rec := d.begin(t)
		b := tone(440, call.Rate)
		speak(rec.Sink(), b, b, 0)
		d.stop()
		if _, err := rec.Finish(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("Finish after Run: %v", err)
		}
		next := newDesk(t, func(c *Config, _ *Deps) { c.Dir = d.cfg.Dir })
		found, err := next.Recover(context.Background())
		if err != nil || len(found) != 1 || found[0].Sealed.Duration != time.Second {
			t.Errorf("recovered %+v, %v", found, err)
		}
	})
}

func TestFailedWriteIsCountedAndNotHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		rec := d.begin(t).(*recording)
		b := tone(440, 2*call.Rate)
		sink := rec.Sink()
		good := rec.file.f
		broken, err := os.Open(d.path(rec.id, audioFile)) // cannot be written
		if err != nil {
			t.Fatal(err)
		}
		swap := func(f *os.File) {
			done := make(chan struct{})
			rec.queue <- func() { rec.file.f = f; close(done) }
			<-done
		}
		speak(sink, b, b, 0)
		synctest.Wait()
		swap(broken)
		speak(sink, b, b, 2*call.Rate)
		synctest.Wait()
		swap(good)
		speak(sink, b, b, 4*call.Rate)
		s := finish(t, rec)
		if err := broken.Close(); err != nil {
			t.Fatal(err)
		}
		if !s.Partial || s.Duration != 6*time.Second {
			t.Errorf("sealed %+v", s)
		}
		if m, err := d.Manifest(s.ID); err != nil || m.Why != "lost_segments" || m.Counts.Lost == 0 {
			t.Errorf("manifest: why %q, %+v, %v", m.Why, m.Counts, err)
		}
		if err := d.Verify(context.Background(), s.ID, d.agency); err != nil {
			t.Error(err)
		}
	})
}

func TestVerifyFindsEveryChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		s := d.kept(t)
		u, err := parseID(s.ID)
		if err != nil {
			t.Fatal(err)
		}
		path := d.path(u, audioFile)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(whole); at += 997 {
			changed := bytes.Clone(whole)
			changed[at] ^= 1
			if err := os.WriteFile(path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			if d.Verify(context.Background(), s.ID) == nil {
				t.Errorf("a change at byte %d is not found", at)
			}
			if err := Decrypt(context.Background(), io.Discard, bytes.NewReader(changed), must(d.WrappedKey(s.ID))(t), d.agency); err == nil && at >= fileHeader {
				t.Errorf("a change at byte %d decrypts", at)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.Verify(context.Background(), s.ID, d.agency); err != nil {
			t.Error(err)
		}
	})
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestTornFileIsCutAtEveryByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		s := d.kept(t)
		m := must(d.Manifest(s.ID))(t)
		f := must(d.Open(s.ID))(t)
		whole := must(io.ReadAll(f))(t)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		last := m.Segments[len(m.Segments)-1]
		for n := int(last.Offset) + 1; n < len(whole); n += 13 {
			seen := Manifest{ID: s.ID}
			size, err := survey(bytes.NewReader(whole[:n]), &seen)
			if !errors.Is(err, errTorn) || size != last.Offset || len(seen.Segments) != len(m.Segments)-1 {
				t.Fatalf("cut at %d: %d good bytes, %d segments, %v", n, size, len(seen.Segments), err)
			}
		}
		// A power loss may leave zeros in place of a frame.
		seen := Manifest{ID: s.ID}
		if size, err := survey(bytes.NewReader(append(bytes.Clone(whole), make([]byte, 500)...)), &seen); !errors.Is(err, errTorn) || size != int64(len(whole)) {
			t.Errorf("zeros at the end: %d good bytes, %v", size, err)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				rec, err := d.Start(context.Background(), testFacts)
				if err != nil {
					t.Error(err)
					return
				}
				in, heard := tone(float64(300+100*i), 4*call.Rate), tone(440, 4*call.Rate)
				speak(rec.Sink(), in, heard, uint32(i))
				s, err := rec.Finish(context.Background())
				if err != nil || s.Duration != 4*time.Second || s.Partial {
					t.Errorf("%+v, %v", s, err)
					return
				}
				var wav bytes.Buffer
				if err := d.Export(context.Background(), &wav, s.ID, d.agency); err != nil {
					t.Error(err)
					return
				}
				if left, right := channels(t, wav.Bytes()); !bytes.Equal(left, in) || !bytes.Equal(right, heard) {
					t.Errorf("recording %d is not what was spoken", i)
				}
			})
		}
		wg.Wait()
	})
}

func BenchmarkSegment(b *testing.B) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		b.Fatal(err)
	}
	audio := make([]byte, 2*segmentSamples)
	s := sealer{to: key.Recipient()}
	b.SetBytes(int64(len(audio)))
	for b.Loop() {
		if _, err := s.seal(audio); err != nil {
			b.Fatal(err)
		}
	}
}

// Every frame is an age file that age itself opens, none is sealed like another, and a file key serves for
// half a minute.
func TestSealer(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s := sealer{to: key.Recipient()}
	audio := bytes.Repeat([]byte{silence}, 2*segmentSamples)
	headers, sealed := map[string]int{}, map[string]bool{}
	for range 2*sealFrames + 1 {
		b, err := s.seal(audio)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := unseal(b, key); err != nil || !bytes.Equal(plain, audio) {
			t.Fatalf("a frame opens to %d bytes, %v", len(plain), err)
		}
		header, err := age.ExtractHeader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		headers[string(header)]++
		sealed[string(b[len(header):])] = true
	}
	if len(headers) != 3 || len(sealed) != 2*sealFrames+1 {
		t.Errorf("%d headers and %d payloads, want 3 and %d", len(headers), len(sealed), 2*sealFrames+1)
	}
}

func TestSinkAllocatesNothingAPacket(t *testing.T) {
	d := newDesk(t, nil)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	rec := newRecording(d.Recorder, ulid.Make(), key, testFacts)
	sink, p, n := rec.Sink(), tone(440, 160), uint32(0)
	sink.Write(call.TrackIn, n, p) // the first makes the buffer
	if allocs := testing.AllocsPerRun(70, func() { n += 160; sink.Write(call.TrackIn, n, p) }); allocs != 0 {
		t.Errorf("%v allocations a packet", allocs)
	}
}

func TestRecoverLeavesWhatNeverBegan(t *testing.T) {
	d := newDesk(t, nil)
	const id = "01JNB000000000000000000000"
	u, err := parseID(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.marker(u), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := d.Recover(context.Background())
	if err != nil || len(found) != 0 || exists(d.marker(u)) {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestDeletionIsByKeyAndHoldsForbidIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		held, gone, open := d.kept(t), d.kept(t), d.kept(t)
		if err := d.Delete(gone.ID); !errors.Is(err, ErrUnsettled) {
			t.Errorf("an unsettled recording is deleted: %v", err)
		}
		for _, s := range []session.Sealed{held, gone} {
			if err := d.Settle(s.ID); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Hold(held.ID, "case 2026-17"); err != nil {
			t.Fatal(err)
		}
		if err := d.Delete(held.ID); !errors.Is(err, ErrHeld) {
			t.Errorf("a held recording is deleted: %v", err)
		}
		later := time.Now().Add(d.cfg.Retention)
		if n, err := d.Sweep(context.Background(), later); n != 0 || err != nil {
			t.Errorf("before the time: %d deleted, %v", n, err)
		}
		n, err := d.Sweep(context.Background(), later.Add(48*time.Hour))
		if n != 1 || err != nil {
			t.Errorf("after the time: %d deleted, %v", n, err)
		}
		if _, err := d.WrappedKey(gone.ID); !errors.Is(err, ErrKeyDestroyed) {
			t.Errorf("the key of the deleted recording: %v", err)
		}
		if err := d.Delete(gone.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("deleted twice: %v", err)
		}
		for _, s := range []session.Sealed{held, open} {
			if err := d.Verify(context.Background(), s.ID, d.agency); err != nil {
				t.Error(err)
			}
		}
		if err := d.Release(held.ID); err != nil {
			t.Fatal(err)
		}
		if err := d.Delete(held.ID); err != nil {
			t.Error(err)
		}
	})
}

func TestPlayNeedsTheListeningKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := filepath.Join(t.TempDir(), "keys", "listen.key")
		if _, err := EnsureKey(key); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"", key} {
			d := newDesk(t, func(c *Config, _ *Deps) { c.ListeningKeyFile = file }).run(t)
			s := d.kept(t)
			var out bytes.Buffer
			switch err := d.Play(context.Background(), &out, s.ID); {
			case file == "" && !errors.Is(err, ErrNoListeningKey):
				t.Errorf("without a key: %v", err)
			case file != "" && err != nil:
				t.Error(err)
			case file != "":
				channels(t, out.Bytes())
			}
			d.stop()
		}
	})
}

func TestEnsureKeyMakesOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "agency.key")
	first := must(EnsureKey(path))(t)
	if again := must(EnsureKey(path))(t); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	if info := must(os.Stat(path))(t); info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v", info.Mode())
	}
	if err := os.WriteFile(path, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureKey(path); err == nil {
		t.Error("a broken key file is taken for a key")
	}
}

func TestUnknownIdentitiesNameNoFile(t *testing.T) {
	d := newDesk(t, nil)
	for _, id := range []string{"", "../../etc/passwd", "01jnb000000000000000000000", "01JNB00000000000000000000U"} {
		if _, err := d.Open(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestConfig(t *testing.T) {
	if err := Defaults().Validate(); err == nil || !strings.HasPrefix(err.Error(), "recipients: ") {
		t.Errorf("defaults: %v", err)
	}
	c := Config{Recipients: []string{"age1nope"}, Watermarks: Watermarks{Stop: 0.5}}
	err := c.Validate()
	for _, path := range []string{"dir: ", "recipients[0]: ", "max_length: ", "max_open: ", "writers: ", "retention: ", "watermarks: "} {
		if !strings.Contains(err.Error(), path) {
			t.Errorf("%q is missing in %v", path, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestSoxReadsTheExport(t *testing.T) {
	sox, err := exec.LookPath("sox")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("sox is not installed; deploy/test-deps installs it")
		}
		t.Skip("sox is not installed")
	}
	var wav []byte
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		var out bytes.Buffer
		if err := d.Export(context.Background(), &out, d.kept(t).ID, d.agency); err != nil {
			t.Fatal(err)
		}
		wav = out.Bytes()
	})
	cmd := exec.Command(sox, "--info", "-")
	cmd.Stdin = bytes.NewReader(wav)
	info, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(info, []byte("A-law")) || !bytes.Contains(info, []byte("Channels       : 2")) {
		t.Errorf("%v\n%s", err, info)
	}
}

func FuzzSurvey(f *testing.F) {
	id, err := parseID("01JNB000000000000000000000")
	if err != nil {
		f.Fatal(err)
	}
	whole := append([]byte(magic), id[:]...)
	for i := range 3 {
		fr := frame{kind: frameAudio, start: int64(i) * 160, samples: 160, body: bytes.Repeat([]byte{byte(i)}, 40)}
		whole = append(whole, fr.encode()...)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := Manifest{ID: "01JNB000000000000000000000"}
		size, err := survey(bytes.NewReader(b), &m)
		if size > int64(len(b)) {
			t.Errorf("%d good bytes of %d", size, len(b))
		}
		if err == nil && size != int64(len(b)) {
			t.Errorf("whole, but only %d bytes of %d are good", size, len(b))
		}
		if size > 0 { // what is good stays good
			again := Manifest{ID: m.ID}
			if n, err := survey(bytes.NewReader(b[:size]), &again); n != size || err != nil {
				t.Errorf("the good part is not good: %d of %d, %v", n, size, err)
			}
		}
	})
}
