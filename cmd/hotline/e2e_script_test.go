package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hotline12345/gateway/configs"
	"github.com/hotline12345/gateway/internal/recording"
)

// TestScript runs the command line by the scripts in testdata/script. Each has the default flow in
// its directory, a TCP port that is in use, $BUSY, and this package's $TESTDATA.
func TestScript(t *testing.T) {
	t.Parallel()
	flow, err := configs.Flows.ReadFile("flows/default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			e.Defer(func() { _ = l.Close() })
			e.Setenv("BUSY", l.Addr().String())
			e.Setenv("TESTDATA", testdata)
			return os.WriteFile(filepath.Join(e.WorkDir, "default.yaml"), flow, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"tamper": tamper, "agency-key": agencyKey},
	})
}

// tamper changes a text in every file of a directory: tamper DIR OLD NEW.
func tamper(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*.jsonl"))
	ts.Check(err)
	changed := false
	for _, f := range files {
		b, err := os.ReadFile(f)
		ts.Check(err)
		b2 := bytes.ReplaceAll(b, []byte(args[1]), []byte(args[2]))
		changed = changed || !bytes.Equal(b, b2)
		ts.Check(os.WriteFile(f, b2, 0o600))
	}
	if !changed {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
}

// agencyKey makes a key of an agency: agency-key FILE.
func agencyKey(ts *testscript.TestScript, _ bool, args []string) {
	_, err := recording.EnsureKey(ts.MkAbs(args[0]))
	ts.Check(err)
}
