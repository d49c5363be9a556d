package asterisk

import (
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
