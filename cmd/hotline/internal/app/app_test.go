package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/siptest/softphone"
)

// onFreePorts is the configuration of a newcomer, at places of its own.
func onFreePorts(t *testing.T) config.Config {
	t.Helper()
	cfg, err := config.Load("", []string{"data=" + t.TempDir(), "sip.carriers.listen=127.0.0.1:0",
		"sip.phones.listen=127.0.0.1:0", "http.listen=127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func ready(t *testing.T, cfg config.Config) *App {
	t.Helper()
	a, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestStartThatFailsLeavesNothingOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := probe.Addr().String()
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := onFreePorts(t)
	cfg.HTTP.Listen, cfg.SIP.Phones.Listen = free, taken.Addr().String()
	if _, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("a port in use was taken")
	}
	cfg.SIP.Phones.Listen = "127.0.0.1:0" // the same data directory and console once more
	if err := ready(t, cfg).close(); err != nil {
		t.Error(err)
	}
	if err := ready(t, cfg).close(); err != nil {
		t.Error(err)
	}
}

// A caller is on the line when a part of the gateway fails: the call's books are kept all the same.
func TestRoomThatFailsEndsTheCallsFirst(t *testing.T) {
	cfg := onFreePorts(t)
	a := ready(t, cfg)
	running := make(chan error, 1)
	go func() { running <- a.Run(t.Context()) }()
	id := callIn(t, a)
	if err := a.control.listen.Close(); err != nil {
		t.Fatal(err)
	}
	err := <-running
	if failed, ok := errors.AsType[*errRoom](err); !ok || failed.room != "control" {
		t.Errorf("Run returned %v", err)
	}
	books, err := journal.New(cfg.Journal, journal.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	row, err := books.Call(t.Context(), id)
	if err != nil || row.EndReason != string(call.EndDrained) {
		t.Errorf("the call's record is %+v, %v", row, err)
	}
	if left, err := books.Checkpoints(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("checkpoints left: %v, %v", left, err)
	}
}

// callIn brings a caller in, who is hung up when the gateway ends, and returns the call's identity.
func callIn(t *testing.T, a *App) string {
	t.Helper()
	changed, unwatch := a.WatchCalls()
	defer unwatch()
	if _, err := dialIn(t, a); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(30 * time.Second)
	for {
		for _, v := range a.Calls() {
			if v.Stage == session.StageFlow || v.Stage == session.StageQueue {
				return v.CallID
			}
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("the call came to no stage")
		}
	}
}

// dialIn rings the line from a phone of its own, until it is answered or refused.
func dialIn(t *testing.T, a *App) (*softphone.Call, error) {
	t.Helper()
	engine, err := media.New(media.Defaults(), media.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	carriers, _, _ := a.Addrs()
	phone, err := softphone.New(softphone.Config{Listen: "127.0.0.1:0", Peer: netip.MustParseAddrPort(carriers),
		Log: slog.New(slog.DiscardHandler)}, engine)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running errgroup.Group
	running.Go(func() error { return engine.Run(ctx) })
	running.Go(func() error { return phone.Run(ctx) })
	t.Cleanup(func() {
		stop()
		if err := running.Wait(); err != nil {
			t.Error(err)
		}
	})
	<-phone.Ready()
	dialling, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return phone.Dial(dialling, softphone.Dial{From: "13800138000", To: "12345"})
}

func TestSecondGatewayInOneDirectory(t *testing.T) {
	cfg := onFreePorts(t)
	first := ready(t, cfg)
	if _, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("two gateways share a directory")
	}
	if _, err := net.Dial("unix", filepath.Join(cfg.Data, "hotline.sock")); err != nil {
		t.Errorf("the second took the first's socket: %v", err)
	}
	if err := first.close(); err != nil {
		t.Error(err)
	}
}
