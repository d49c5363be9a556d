package recording

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/hotline12345/gateway/internal/call"
)

// recordUntilKilled is the child of the test below: it records a counter in real time and tells after
// each packet how many samples were spoken.
func recordUntilKilled(dir string) {
	cfg := Defaults()
	cfg.Dir = dir
	cfg.Recipients = []string{os.Getenv("HOTLINE_TEST_RECIPIENT")}
	r, err := New(cfg, Deps{})
	if err != nil {
		panic(err)
	}
	go func() { _ = r.Run(context.Background()) }() // ends with the process
	rec, err := r.Start(context.Background(), testFacts)
	if err != nil {
		panic(err)
	}
	sink := rec.Sink()
	rec.Mark("talk", "before the kill")
	start := time.Now()
	for n := 0; ; n += call.FrameBytes { // a child that was late makes up for it, as a caller's phone does
		time.Sleep(time.Until(start.Add(duration(int64(n)))))
		sink.Write(call.TrackIn, uint32(n), counter(n))
		fmt.Println(n + call.FrameBytes)
	}
}

// counter is a packet that tells which one it is.
func counter(n int) []byte {
	return bytes.Repeat([]byte{byte(n / call.FrameBytes)}, call.FrameBytes)
}

func TestKillLosesAtMostTwoSeconds(t *testing.T) {
	agency, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	spoken := recordAndKill(t, dir, agency.Recipient().String())
	cfg := Defaults()
	cfg.Dir = dir
	cfg.Recipients = []string{agency.Recipient().String()}
	r, err := New(cfg, Deps{Space: roomy})
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Recover(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || !found[0].Sealed.Partial || found[0].Facts.CallID != testFacts.CallID {
		t.Fatalf("recovered %+v", found)
	}
	s := found[0].Sealed
	if lost := duration(int64(spoken)) - s.Duration; lost > 2*time.Second {
		t.Errorf("%v of %v is lost", lost, duration(int64(spoken)))
	}
	if err := r.Verify(context.Background(), s.ID, agency); err != nil {
		t.Error(err)
	}
	var wav bytes.Buffer
	if err := r.Export(context.Background(), &wav, s.ID, agency); err != nil {
		t.Fatal(err)
	}
	left, _ := channels(t, wav.Bytes())
	checkCounter(t, left)
	m, err := r.Manifest(s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Marks) != 1 || m.Marks[0].Note != "before the kill" || m.Why != "killed" {
		t.Errorf("marks %v, why %q", m.Marks, m.Why)
	}
	settles(t, r, s.ID)
	if _, err := os.Stat(filepath.Join(dir, markers, s.ID)); err == nil {
		t.Error("the marker outlives Settle")
	}
}

// recordAndKill lets a child record five seconds, kills it, and tells how many samples were spoken.
func recordAndKill(t *testing.T, dir, recipient string) (spoken int) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "HOTLINE_TEST_RECORD_IN="+dir, "HOTLINE_TEST_RECIPIENT="+recipient)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); spoken < 5*call.Rate && lines.Scan(); {
		if spoken, err = strconv.Atoi(strings.TrimSpace(lines.Text())); err != nil {
			t.Errorf("the child says %q", lines.Text())
		}
	}
	if err := child.Process.Kill(); err != nil { // SIGKILL
		t.Fatal(err)
	}
	_ = child.Wait() // "signal: killed"
	return spoken
}

// checkCounter holds the audio to the packets that were spoken. RTP time places them, so that a child
// that was late leaves no hole.
func checkCounter(t *testing.T, left []byte) {
	t.Helper()
	start := bytes.IndexByte(left, 0)
	if start < 0 {
		t.Fatal("the first packet is not found")
	}
	for i, b := range left[start:] {
		if want := byte(i / call.FrameBytes); b != want {
			t.Fatalf("sample %d is %d, want %d", i, b, want)
		}
	}
}

// settles checks that an unsettled recording comes again, and a settled one does not.
func settles(t *testing.T, r *Recorder, id string) {
	t.Helper()
	again, err := r.Recover(context.Background())
	if err != nil || len(again) != 1 || again[0].Sealed.ID != id {
		t.Errorf("before Settle: %+v, %v", again, err)
	}
	r.SettleCall(testFacts.CallID)
	if again, err = r.Recover(context.Background()); err != nil || len(again) != 0 {
		t.Errorf("after Settle: %+v, %v", again, err)
	}
}
