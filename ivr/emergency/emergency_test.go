package emergency

import (
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

func TestByKey(t *testing.T) {
	want := map[byte]session.Service{'1': session.Police, '2': session.Fire, '3': session.Medical, '4': session.Road}
	for key := range 256 {
		got, ok := ByKey(byte(key))
		service, chosen := want[byte(key)]
		if got != service || ok != chosen {
			t.Errorf("ByKey(%d) = %q, %v; want %q, %v", key, got, ok, service, chosen)
		}
	}
}

func TestKeyWatch(t *testing.T) {
	type press struct {
		key        byte
		after      time.Duration // since the key before
		collecting bool
		fires      bool
	}
	tests := []struct {
		name    string
		presses []press
	}{
		{"0 outside", []press{{'0', 0, false, true}}},
		{"0 outside, twice", []press{{'0', 0, false, true}, {'0', time.Second, false, true}}},
		{"other keys outside", []press{{'1', 0, false, false}, {'*', 0, false, false}, {'#', 0, false, false}, {'9', 0, false, false}}},
		{"0 is a digit inside", []press{{'1', 0, true, false}, {'0', 0, true, false}, {'0', 0, true, false}}},
		{"*0 inside", []press{{'*', 0, true, false}, {'0', time.Second, true, true}}},
		{"*0 after digits", []press{{'1', 0, true, false}, {'*', 0, true, false}, {'0', 0, true, true}}},
		{"**0", []press{{'*', 0, true, false}, {'*', 2 * time.Second, true, false}, {'0', 2 * time.Second, true, true}}},
		{"0 within the window", []press{{'*', 0, true, false}, {'0', StarWindow, true, true}}},
		{"0 too late", []press{{'*', 0, true, false}, {'0', StarWindow + 1, true, false}}},
		{"a key between", []press{{'*', 0, true, false}, {'5', 0, true, false}, {'0', 0, true, false}}},
		{"the star of a menu is no part of the digits", []press{{'*', 0, false, false}, {'0', 0, true, false}}},
		{"the run ended after the star", []press{{'*', 0, true, false}, {'0', 0, false, true}}},
		{"once a star", []press{{'*', 0, true, false}, {'0', 0, true, true}, {'0', 0, true, false}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var w KeyWatch
			at := time.Date(2026, 3, 3, 9, 0, 0, 0, time.UTC)
			for i, p := range tt.presses {
				at = at.Add(p.after)
				if got := w.Press(p.key, at, p.collecting); got != p.fires {
					t.Errorf("key %d, %q: fires %v, want %v", i, p.key, got, p.fires)
				}
			}
		})
	}
}
