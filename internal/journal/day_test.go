package journal

import (
	"testing"
	"time"
)

func TestDay(t *testing.T) {
	j, _ := opened(t, nil)
	start := time.Now().Truncate(time.Second)
	for id, c := range map[string]CDR{
		"yesterday": {Started: start.Add(-time.Hour), Queue: "default"},
		"answered":  {Started: start, Queued: start.Add(time.Second), Connected: start.Add(16 * time.Second), Queue: "default"},
		"late":      {Started: start, Queued: start.Add(time.Second), Connected: start.Add(17 * time.Second), Queue: "default"},
		"abandoned": {Started: start, Queued: start.Add(time.Second), Queue: "default", Outcome: "abandoned"},
		"english":   {Started: start, Queued: start, Queue: "english"},
		"no queue":  {Started: start},
	} {
		c.CallID = id
		if err := j.SaveCDR(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	day, err := j.Day(t.Context(), start)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := day["default"], (Tally{"default", 3, 2, 1, 1}); got != want || len(day) != 2 {
		t.Errorf("the day is %+v, want %+v for default", day, want)
	}
}
