package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hotline12345/gateway/configs/policy"
)

// simulateCases runs the command as the shell does.
func simulateCases(t *testing.T, args ...string) (out, told string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := root()
	cmd.SetArgs(append([]string{"abuse", "simulate"}, args...))
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	err = cmd.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

const workedCases = "../../abuse/testdata/art29-cases.tsv"

func TestSimulateWorkedCases(t *testing.T) {
	b, err := os.ReadFile(workedCases)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(strings.TrimSpace(line), "\t"); len(f) == 8 && f[0] != "id" {
			want.WriteString(f[0] + "\t" + f[6] + "\n")
		}
	}
	if out, told, err := simulateCases(t, "--cases", workedCases); err != nil || out != want.String() || told != "" {
		t.Errorf("%v %s\n%s, want\n%s", err, told, out, want.String())
	}
}

func TestSimulateTriesAnotherPolicy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	stricter := strings.Replace(string(policy.Art29), "time: 120s", "time: 121s", 1)
	if err := os.WriteFile(file, []byte(stricter), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := simulateCases(t, "--cases", workedCases, "--policy", file)
	if err != nil || !strings.Contains(out, "A06\tDENY:grace_not_elapsed\n") {
		t.Errorf("%v %s", err, out)
	}
	if err := os.WriteFile(file, []byte("version: P1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := simulateCases(t, "--cases", workedCases, "--policy", file); err == nil || !strings.Contains(err.Error(), "grace.time") {
		t.Errorf("a policy without numbers: %v", err)
	}
}

func TestSimulateSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cases.tsv")
	good := `[]` + "\t" + `{"t":"2026-03-02T09:00:00+08:00","q":"invite","n":"a","idc":"verified"}`
	if err := os.WriteFile(file, []byte("id\tgiven_events_json\tquery_json\nA\t[\t{}\nB\t"+good+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, told, err := simulateCases(t, "--cases", file)
	if err == nil || out != "B\tADMIT\n" || !strings.HasPrefix(told, file+":2: given_events_json: ") || !strings.Contains(told, "; write ") {
		t.Errorf("%v, %q, %q", err, out, told)
	}
	if _, _, err := simulateCases(t, "--cases", file+".none"); err == nil || !strings.Contains(err.Error(), "write the path") {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, _, err := simulateCases(t); err == nil {
		t.Error("no file is no error")
	}
}
