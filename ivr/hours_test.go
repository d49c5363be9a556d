package ivr

import (
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/session"
)

func TestHours(t *testing.T) {
	const src = `start: h
person: open
nodes:
  h:
    type: hours
    week: {mon-fri: ["08:30-12:00", "13:00-17:30"], sat: 09:00-12:00, sun: 22:00-24:00}
    holidays: [2026-10-01]
    workdays: [2026-10-10]
    open: open
    closed: shut
  open: {type: queue, queue: default}
  shut: {type: queue, queue: night}
`
	cfg := Defaults()
	cfg.Default = "h"
	e := engineOf(t, cfg, fstest.MapFS{"h.yaml": file(src)})
	for when, open := range map[string]bool{
		"2026-03-03T08:29:59+08:00": false, // a Tuesday
		"2026-03-03T08:30:00+08:00": true,
		"2026-03-03T12:00:00+08:00": false,
		"2026-03-03T13:00:00+08:00": true,
		"2026-03-03T17:30:00+08:00": false,
		"2026-03-03T01:00:00Z":      true, // 9 in the city
		"2026-03-07T11:59:00+08:00": true, // Saturday
		"2026-03-08T11:59:00+08:00": false,
		"2026-03-08T23:59:00+08:00": true,
		"2026-10-01T10:00:00+08:00": false, // a holiday on a Thursday
		"2026-10-10T14:00:00+08:00": true,  // a Saturday that is worked
	} {
		now, err := time.Parse(time.RFC3339, when)
		if err != nil {
			t.Fatal(err)
		}
		exit, err := e.Run(t.Context(), &phone{}, session.FlowPoint{Now: now})
		if want := map[bool]string{true: "default", false: "night"}[open]; err != nil || exit.Queue != want {
			t.Errorf("at %s: %s, %v; want %s", when, exit.Queue, err, want)
		}
	}
}

func TestAnnouncements(t *testing.T) {
	const flow = "start: news\nperson: desk\nnodes:\n  news: {type: announce, file: events.yaml, next: desk}\n  desk: {type: queue, queue: default}\n"
	const event = `announcements:
  - {topic: typhoon, expires: 2026-03-03T10:00:00+08:00, author: duty, say: [q_long]}
  - {topic: water, scope: ["12345"], expires: 2026-03-04T00:00:00+08:00, author: duty, say: [all_busy]}
  - {topic: elsewhere, scope: ["96345"], expires: 2026-03-04T00:00:00+08:00, author: duty, say: [goodbye]}
`
	nine, ten := at("").Now, at("").Now.Add(time.Hour)
	tests := []struct {
		name   string
		events *fstest.MapFile
		now    time.Time
		said   []string
		topics string
		faults float64
	}{
		{"in force", file(event), nine, []string{"zh/q_long", "zh/all_busy"}, "typhoon,water", 0},
		{"expired at this instant", file(event), ten, []string{"zh/all_busy"}, "water", 0},
		{"no file", nil, nine, nil, "", 0},
		{"unknown key", file("announcement: []\n"), nine, nil, "", 1},
		{"no expiry", file("announcements: [{topic: a, author: b, say: [goodbye]}]\n"), nine, nil, "", 1},
		{"unknown prompt", file("announcements: [{topic: a, author: b, expires: 2026-03-04T00:00:00+08:00, say: [nope]}]\n"), nine, nil, "", 1},
		{"too large", file(strings.Repeat("#", maxEvents+1)), nine, nil, "", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := fstest.MapFS{"f.yaml": file(flow)}
				if tt.events != nil {
					files["events.yaml"] = tt.events
				}
				cfg := Defaults()
				cfg.Default = "f"
				e := engineOf(t, cfg, files)
				p := &phone{}
				exit, err := e.Run(t.Context(), p, session.FlowPoint{Called: "12345", Now: tt.now})
				if err != nil || exit.Kind != session.ExitQueue {
					t.Fatalf("%+v, %v; want the person whatever the news", exit, err)
				}
				if diff := cmp.Diff(tt.said, p.said); diff != "" {
					t.Error(diff)
				}
				if exit.Data["news"] != tt.topics {
					t.Errorf("topics %q; want %q", exit.Data["news"], tt.topics)
				}
				if got := testutil.ToFloat64(e.metrics.faults.WithLabelValues(faultEvents)); got != tt.faults {
					t.Errorf("%v faults; want %v", got, tt.faults)
				}
			})
		})
	}
}
