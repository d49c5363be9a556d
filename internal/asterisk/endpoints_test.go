package asterisk

import (
	"errors"
	"log/slog"
	"net"
	"testing"

	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
)

func TestPhonesComeAndGo(t *testing.T) {
	ast := asterisktest.Start(t, "n1", "127.0.0.1:9")
	told := make(chan bool, 8)
	w := newWireOn(t, ast, func(s *Switch) {
		s.deps.OnPhone = func(extension string, here bool) {
			if extension == "1001" {
				told <- here
			}
		}
	})
	if w.sw.Registered("1001") {
		t.Error("a phone that never registered is there")
	}
	p := w.Phone("1001").(*person)
	if !<-told || !w.sw.Registered("1001") {
		t.Error("the phone that registered is not there")
	}
	if err := p.phone.Register(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if <-told || w.sw.Registered("1001") {
		t.Error("the phone that took leave is there")
	}
	if got := w.sw.Trunks(); len(got) != 1 || got[0].Name != "carrier" {
		t.Errorf("the trunks are %+v", got)
	}
}

// TestAsteriskWithoutPortsIsNotAskedForMore fills what rtp.conf has up to the part that is kept.
func TestAsteriskWithoutPortsIsNotAskedForMore(t *testing.T) {
	cfg := Defaults()
	cfg.SoundsDir, cfg.RTPPorts = t.TempDir(), 100
	s, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	s.phones = map[string]endpoint{"carrier": {Channels: make([]string, 30)}, "1001": {Channels: make([]string, 4)}}
	s.sides = map[string]chan struct{}{sideID(): nil, sideID(): nil, sideID(): nil, sideID(): nil, sideID(): nil}
	if !s.hasPorts() {
		t.Error("36 channels are too many for 100 ports")
	}
	s.sides[sideID()] = nil
	if _, err := s.externalMedia(t.Context(), &net.UDPAddr{}); !errors.Is(err, errNoPorts) {
		t.Errorf("one more gave %v", err)
	}
}
