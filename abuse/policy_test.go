package abuse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/hotline12345/gateway/configs/policy"
)

func TestP0(t *testing.T) {
	p := p0(t)
	if p.Repeat.Short.Calls != 6 || p.Repeat.Short.Within != 3600*time.Second || p.Repeat.Day.Calls != 10 ||
		p.Repeat.Day.Within != 86400*time.Second || p.Long.Call != 1200*time.Second || p.Long.Total != 3600*time.Second ||
		p.Concurrency.Calls != 2 || p.Concurrency.Lease != 15*time.Second || p.Concurrency.Heartbeat != 5*time.Second ||
		p.Snapshot != 300*time.Second || p.Measure.Terms[2] != 168*time.Hour || p.Measure.Longest != 30*24*time.Hour ||
		p.Hindrance.Waiting != 1 || p.Hindrance.Occupancy != 0.85 || p.Reminder.Valid != 86400*time.Second || p.Reminder.Recording ||
		p.Grace.Time != 120*time.Second || p.Grace.AccessNeed != 300*time.Second || p.Continuation != 1800*time.Second ||
		p.Measure.LookBack != 180*24*time.Hour || p.Appeal.Lapse != 86400*time.Second || p.Referral.Decisions != 3 {
		t.Errorf("P0 is %+v", p)
	}
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
}

func TestPolicyNamesPathAndMend(t *testing.T) {
	for path, edit := range map[string][2]string{
		"version":                  {"version: P0", "version: ''"},
		"repeat.short.calls":       {"calls: 6", "calls: 1"},
		"repeat.day.within":        {"within: 24h}", "within: 25h}"},
		"long.call":                {"call: 20m", "call: 1m"},
		"long.total":               {"total: 1h", "total: 13h"},
		"counted[1]":               {"no_request, silent", "no_request, registered"},
		"measure.terms":            {"[24h, 72h, 168h]", "[24h, 72h]"},
		"measure.terms[1]":         {"[24h, 72h, 168h]", "[24h, 24h, 168h]"},
		"measure.longest":          {"longest: 720h", "longest: 721h"},
		"hindrance.waiting":        {"waiting: 1 ", "waiting: 0 "},
		"hindrance.occupancy":      {"occupancy: 0.85", "occupancy: .nan"},
		"reminder.valid":           {"valid: 24h", "valid: 25h"},
		"grace.time":               {"time: 120s", "time: 59s"},
		"grace.access_need":        {"access_need: 300s", "access_need: 119s"},
		"continuation":             {"continuation: 30m", "continuation: 3h"},
		"measure.look_back":        {"look_back: 4320h", "look_back: 4321h"},
		"approvers":                {"[manager], [manager]]", "[manager]]"},
		"approvers[0]":             {"[supervisor, manager]", "[agent, manager]"},
		"approvers[2]":             {"[manager], [manager]]", "[manager], []]"},
		"appeal.lapse":             {"lapse: 24h", "lapse: 25h"},
		"referral.decisions":       {"decisions: 3", "decisions: 2"},
		"concurrency.calls":        {"calls: 2 ", "calls: 0 "},
		"concurrency.heartbeat":    {"heartbeat: 5s", "heartbeat: 6s"},
		"snapshot":                 {"snapshot: 300s", "snapshot: 301s"},
		"counters":                 {"counters: 48h", "counters: 23h"},
		`unknown field "longest2"`: {"longest:", "longest2:"},
	} {
		text := strings.Replace(string(policy.Art29), edit[0], edit[1], 1)
		if text == string(policy.Art29) {
			t.Fatalf("%s: nothing was edited", path)
		}
		_, err := ParsePolicy([]byte(text))
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := (Policy{}).Validate(); err == nil {
		t.Error("an empty policy is valid")
	}
}

func TestConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	cfg := Config{PolicyFile: file, EpochLife: time.Hour}
	err := cfg.Validate()
	for _, part := range []string{"policy_file: ", "epoch_life: "} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %s", err, part)
		}
	}
	cfg.EpochLife = Defaults().EpochLife
	os.WriteFile(file, []byte(strings.Replace(string(policy.Art29), "version: P0", "version: city-2", 1)), 0o600)
	if p, err := cfg.Policy(); err != nil || p.Version != "city-2" || cfg.Validate() != nil {
		t.Errorf("Policy = %v, %v", p.Version, err)
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(policy.Art29)
	f.Add([]byte("repeat: {short: 1}"))
	f.Add([]byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePolicy(b)
		if err == nil && p.Validate() != nil {
			t.Fatal("an invalid policy was taken")
		}
	})
}

func FuzzStored(f *testing.F) {
	f.Add(`{"decision":"20260302-0001","until":"2026-03-03T09:00:00Z"}`, "1 2 3")
	f.Add(`{`, "1 2")
	f.Add(`null`, "9223372036854775808 0 0")
	f.Fuzz(func(t *testing.T, text, values string) {
		if s, err := readStored(text); err == nil && s.Decision == "" {
			t.Fatal("a measure without a decision was read")
		}
		readCounted([]string{values})
	})
}

func TestMetricsLint(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	newMetrics(reg)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}
