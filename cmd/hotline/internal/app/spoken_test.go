package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/configs"
)

// A reload takes a good edition, and keeps the last good one when the new one has a fault.
func TestReloadKeepsTheLastGood(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "default.yaml")
	good, err := configs.Flows.ReadFile("flows/default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(good)
	cfg := config.Defaults(dir)
	cfg.IVR.Flows = dir
	log := slog.New(slog.DiscardHandler)
	s, err := newSpoken(cfg, nil, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	first := s.edition.Load()
	write([]byte("start: nowhere\n"))
	if err := s.reload(cfg, log); err == nil {
		t.Error("a flow with faults was taken")
	}
	if s.edition.Load() != first {
		t.Error("the last good edition is gone")
	}
	write(good)
	if err := s.reload(cfg, log); err != nil {
		t.Error(err)
	}
	if s.edition.Load() == first {
		t.Error("the good edition was not taken")
	}
	for _, result := range []string{"ok", "failed"} {
		if got := testutil.ToFloat64(s.reloads.WithLabelValues(result)); got != 1 {
			t.Errorf("%s reloads: %v", result, got)
		}
	}
}
