package calltest

import (
	"testing"
	"testing/synctest"

	"github.com/hotline12345/gateway/internal/call"
)

type fakeHarness struct{ f *Fake }

func (h fakeHarness) Switch() call.Switch      { return h.f }
func (h fakeHarness) Call(info call.Info) Peer { return h.f.Call(info) }
func (h fakeHarness) Phone(at string) Peer     { return h.f.Phone(at) }

func TestFake(t *testing.T) {
	Run(t, func(t *testing.T, body func(*testing.T, func(*testing.T) Harness)) {
		synctest.Test(t, func(t *testing.T) {
			body(t, func(*testing.T) Harness { return fakeHarness{NewFake()} })
		})
	})
}
