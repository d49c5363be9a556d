package app

import (
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops/opstest"
)

// root is the project's directory.
const root = "../../../.."

// made makes a gateway on free ports, and does not run it.
func made(t *testing.T) *App {
	t.Helper()
	cfg, err := config.Load("", []string{
		"data=" + t.TempDir(),
		"sip.carriers.listen=127.0.0.1:0", "sip.phones.listen=127.0.0.1:0", "http.listen=127.0.0.1:0",
		"speech.vosk.url=ws://127.0.0.1:1", // a recogniser and a judge have metrics too
		"emergency.judge.url=http://127.0.0.1:1/v1", "emergency.judge.model=m",
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestMetricsKeepTheRules(t *testing.T) { opstest.Lint(t, made(t).reg) }

var (
	described = regexp.MustCompile(`fqName: "([^"]+)"`)
	mentioned = regexp.MustCompile(`\bhotline_[a-z0-9_]*[a-z0-9]\b`)
	series    = regexp.MustCompile(`_(bucket|sum|count)$`) // what a histogram is made of
	declared  = regexp.MustCompile(`Name: "(hotline_ari_[a-z_]+)"`)
)

// TestMetricsInWritingExist holds alerts and documents to the names that the gateway really shows.
func TestMetricsInWritingExist(t *testing.T) {
	known, reg := map[string]bool{}, made(t).reg
	descs := make(chan *prometheus.Desc)
	go func() { reg.Describe(descs); close(descs) }()
	for d := range descs {
		if name := described.FindStringSubmatch(d.String()); name != nil {
			known[name[1]] = true
		}
	}
	asterisk, err := os.ReadFile(filepath.Join(root, "internal", "asterisk", "metrics.go")) // shown by a gateway with an Asterisk alone
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range declared.FindAllStringSubmatch(string(asterisk), -1) {
		known[name[1]] = true
	}
	for _, path := range written(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range mentioned.FindAllString(string(text), -1) {
			if !known[name] && !known[series.ReplaceAllString(name, "")] {
				t.Errorf("%s: there is no metric %s", path, name)
			}
		}
	}
}

// written lists the files that tell operators of metrics.
func written(t *testing.T) (files []string) {
	t.Helper()
	files = []string{filepath.Join(root, "README.md")}
	for _, dir := range []string{"deploy", "docs"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			switch filepath.Ext(path) {
			case ".md", ".yml", ".yaml", ".json":
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestAlerts(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is missing; deploy/test-deps installs it")
		}
		t.Skip("promtool is missing; deploy/test-deps installs it")
	}
	tests, err := filepath.Glob(filepath.Join(root, "deploy", "prometheus", "*_test.yml"))
	if err != nil || len(tests) == 0 {
		t.Fatal("no tests of alerts", err)
	}
	for _, args := range [][]string{
		{"check", "rules", filepath.Join(root, "deploy", "prometheus", "alerts.yml")},
		append([]string{"test", "rules"}, tests...),
	} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args[:2], " "), err, out)
		}
	}
}
