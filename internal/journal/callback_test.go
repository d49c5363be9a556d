package journal

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCallBacksAreKeptOverARestart(t *testing.T) {
	j, stop := opened(t, nil)
	ctx := context.Background()
	save := func(id string, at time.Duration, open bool, body string) {
		t.Helper()
		if err := j.SaveCallBack(ctx, CallBackRecord{ID: id, Updated: noon.Add(at), Open: open, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	save("a", 0, true, "first")
	save("a", time.Second, true, "second")
	save("a", time.Millisecond, false, "late news of before")
	save("b", time.Minute, false, "closed")
	stop()
	again, err := New(j.cfg, testDeps())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
	got, err := again.CallBackRecords(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []CallBackRecord{{ID: "b", Updated: noon.Add(time.Minute), Body: []byte("closed")},
		{ID: "a", Updated: noon.Add(time.Second), Open: true, Body: []byte("second")}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A closed call back is forgotten; one that is open never is.
func TestOldCallBacksAreSwept(t *testing.T) {
	j, _ := opened(t, nil)
	ctx := context.Background()
	for id, open := range map[string]bool{"open": true, "closed": false} {
		if err := j.SaveCallBack(ctx, CallBackRecord{ID: id, Updated: noon, Open: open, Body: []byte(id)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Sweep(ctx, noon.Add(closedCallBacks+time.Hour)); err != nil {
		t.Fatal(err)
	}
	got, err := j.CallBackRecords(ctx)
	if err != nil || len(got) != 1 || got[0].ID != "open" {
		t.Errorf("%+v, %v", got, err)
	}
}

// A book of the first version gets the later tables.
func TestABookOfTheFirstVersionIsMigrated(t *testing.T) {
	j, _ := opened(t, nil)
	if _, err := j.w.Exec("DROP TABLE callback; PRAGMA user_version = 1"); err != nil {
		t.Fatal(err)
	}
	if err := migrate(j.w); err != nil {
		t.Fatal(err)
	}
	if _, err := j.CallBackRecords(context.Background()); err != nil {
		t.Error(err)
	}
}
