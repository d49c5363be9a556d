package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// matters is the book of Article 29 as a script.
type matters struct {
	mu      sync.Mutex
	notes   []ConductNote
	appeals []string
	refuses string
}

func (m *matters) Note(_ context.Context, n ConductNote) (Standing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuses != "" {
		return Standing{}, &Refusal{m.refuses}
	}
	m.notes = append(m.notes, n)
	return Standing{Stage: "REMINDED", Mark: string(n.Kind)}, nil
}

func (m *matters) Appeal(_ context.Context, decision, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.appeals = append(m.appeals, decision)
	return nil
}

// took are the notes so far.
func (m *matters) took() []ConductNote {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.notes)
}

// TestAnAgentNotesConduct: by feature codes and by the page, marks and reminders reach the book with the call
// as it stands, and the view shows what became of them.
func TestAnAgentNotesConduct(t *testing.T) {
	in(t, func(r *rig) {
		book := &matters{}
		r.m.Conduct = book
		caller, agent, id := r.joined()
		by := r.m.Views()[0].Agent
		agent.Press("*22*28*25")
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		notes := book.took()
		if len(notes) != 3 {
			t.Fatalf("%d notes: %+v", len(notes), notes)
		}
		of := func(is func(ConductNote) bool) ConductNote { // they are carried out beside one another
			return notes[max(0, slices.IndexFunc(notes, is))]
		}
		mark := of(func(n ConductNote) bool { return n.Kind == MarkAbuse })
		spoken := of(func(n ConductNote) bool { return n.Clause == "29-1" })
		played := of(func(n ConductNote) bool { return n.Clause == "29-2" })
		if mark.Kind != MarkAbuse || mark.By != by || mark.Call.CallID != id || mark.Call.Caller != citizen || mark.Call.Answered.IsZero() || mark.Call.Evidence != "recorded" {
			t.Errorf("the mark is %+v", mark)
		}
		if spoken.Kind != ConductRemind || spoken.Clause != "29-1" || spoken.Script != "" {
			t.Errorf("the spoken reminder is %+v", spoken)
		}
		if played.Clause != "29-2" || played.Script != "remind_29_2" || !r.heard("remind_29_2") {
			t.Errorf("the played reminder is %+v", played)
		}
		if v := r.m.Views()[0]; v.Standing.Stage != "REMINDED" || v.Facts.Outcome != OutcomeAbuse {
			t.Errorf("the view has %+v, outcome %s", v.Standing, v.Facts.Outcome)
		}

		book.refuses = "no_reminder"
		if err := r.m.NoteConduct(t.Context(), id, by, ConductPropose, "", false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if v := r.m.Views()[0]; v.Standing.Problem != "no_reminder" || v.Standing.Stage != "REMINDED" {
			t.Errorf("after a refusal: %+v", v.Standing)
		}
		for err, act := range map[error]func() error{
			ErrNotYours: func() error { return r.m.NoteConduct(t.Context(), id, "another", MarkAbuse, "", false) },
			ErrBadFacts: func() error { return r.m.NoteConduct(t.Context(), id, by, ConductRemind, "29-3", false) },
			ErrNoCall:   func() error { return r.m.NoteConduct(t.Context(), "none", by, MarkAbuse, "", false) },
		} {
			if got := act(); !errors.Is(got, err) {
				t.Errorf("%v, want %v", got, err)
			}
		}
		caller.Hang()
		synctest.Wait()
		if err := r.m.NoteConduct(t.Context(), id, by, ConductRemind, "29-1", false); !errors.Is(err, ErrNotInTalk) {
			t.Errorf("a reminder to nobody: %v", err)
		}
		book.refuses = ""
		if err := r.m.NoteConduct(t.Context(), id, by, ConductPropose, "", false); err != nil {
			t.Errorf("a proposal in wrap-up: %v", err)
		}
		synctest.Wait()
		if n := book.took(); n[len(n)-1].Kind != ConductPropose || n[len(n)-1].Call.Ended.IsZero() {
			t.Errorf("the last note is %+v", n[len(n)-1])
		}
		r.settled(3 * time.Minute)
	})
}

// TestAReminderThatIsCutOff is none: the caller hung up in it.
func TestAReminderThatIsCutOff(t *testing.T) {
	in(t, func(r *rig) {
		book := &matters{}
		r.m.Conduct = book
		caller, agent, _ := r.joined()
		agent.Press("*27")
		synctest.Wait()
		caller.Hang()
		synctest.Wait()
		if n := book.took(); len(n) != 0 {
			t.Errorf("noted %+v", n)
		}
		if v := r.m.Views()[0]; v.Standing.Problem != "unheard" {
			t.Errorf("the view has %+v", v.Standing)
		}
		r.settled(3 * time.Minute)
	})
}

// TestASuspendedCallerAppeals by key 2; the appeal is recorded before the message is left.
func TestASuspendedCallerAppeals(t *testing.T) {
	in(t, func(r *rig) {
		book := &matters{}
		r.m.Conduct = book
		caller := moments["suspended"](r)
		<-caller.Answered()
		caller.Press("2")
		time.Sleep(5 * time.Second)
		caller.Hang()
		r.settled(time.Minute)
		if !slices.Equal(book.appeals, []string{"1"}) {
			t.Errorf("appeals %v", book.appeals)
		}
	})
}
