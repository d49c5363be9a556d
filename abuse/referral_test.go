package abuse

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// TestAReferralNeedsTwoPersonsAndVerifiesByItself: three confirmed decisions, a proposal, another person's approval;
// the file opens with the recipient's key alone, and what its README says to run finds nothing wrong with it, and a
// changed line.
func TestAReferralNeedsTwoPersonsAndVerifiesByItself(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to := key.Recipient().String()
	n := startWith(t, "n1", t.TempDir(), &clock{at: time.Now().Truncate(time.Millisecond)}, Deps{Store: storetest.Open(t, ""), Load: busy})
	n.sync()
	id := n.proposed()
	if err := n.ProposeReferral(t.Context(), id, to, "often", "sup1", Supervisor); refusal(err) != ReasonNotCandidate {
		t.Errorf("without three decisions: %v", err)
	}
	for range 3 {
		if _, err := n.SetMeasure(t.Context(), Measure{Number: call.Number{E164: mobile}, Clause: Clause1, Level: 1, Reason: "x"}, "mgr1"); err != nil {
			t.Fatal(err)
		}
		n.clock.turn(25 * time.Hour)
		n.sync()
	}
	if err := n.ProposeReferral(t.Context(), id, "age1nobody", "often", "sup1", Supervisor); err == nil {
		t.Error("a key that is none is taken")
	}
	if _, err := n.Refer(t.Context(), id, "often", "mgr1", Manager); refusal(err) != ReasonNoProposal {
		t.Errorf("without a proposal: %v", err)
	}
	if err := n.ProposeReferral(t.Context(), id, to, "often", "mgr1", Manager); err != nil {
		t.Fatal(err)
	}
	for by, want := range map[string]Reason{"mgr1": ReasonConflict, "sup1": ReasonRole} {
		role := map[string]Role{"mgr1": Manager, "sup1": Supervisor}[by]
		if _, err := n.Refer(t.Context(), id, "often", by, role); refusal(err) != want {
			t.Errorf("%s: %v, want %s", by, err, want)
		}
	}
	m, err := n.Refer(t.Context(), id, "often", "mgr2", Manager)
	if err != nil || m.Stage != StageReferred {
		t.Fatalf("%s, %v", m.Stage, err)
	}
	if _, err := n.Refer(t.Context(), id, "again", "mgr2", Manager); refusal(err) != ReasonNoProposal {
		t.Errorf("twice: %v", err)
	}
	var sealed bytes.Buffer
	if err := n.WriteReferral(&sealed, m, []Enclosed{{"recordings/c5.wav", []byte("RIFF")}}); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed.Bytes(), []byte(mobile[1:])) {
		t.Error("the file shows the number")
	}
	dir := unpack(t, &sealed, key)
	if out := verifies(t, dir); out != "" {
		t.Errorf("a whole file: %s", out)
	}
	line := filepath.Join(dir, "audit", "n1.jsonl")
	text, err := os.ReadFile(line)
	if err != nil || bytes.Count(text, []byte("\n")) < 10 || !bytes.Contains(text, []byte("matter.refer")) {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := os.WriteFile(line, bytes.Replace(text, []byte(`"actor":"mgr1"`), []byte(`"actor":"mgr9"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := verifies(t, dir); !strings.Contains(out, "changed: ") || !strings.Contains(out, "FAILED") {
		t.Errorf("a changed line: %q", out)
	}
}

// unpack opens a referral as its recipient does.
func unpack(t *testing.T, sealed io.Reader, key age.Identity) (dir string) {
	t.Helper()
	plain, err := age.Decrypt(sealed, key)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for in := tar.NewReader(plain); ; {
		h, err := in.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// verifies runs the commands of the README that lies in the file, and returns what they complain of.
func verifies(t *testing.T, dir string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(dir, "README.txt"))
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(readme), "/ The lines.")
	var commands []string
	for l := range strings.Lines(script) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "while") || strings.HasPrefix(l, "[") || strings.HasPrefix(l, "grep") || strings.HasPrefix(l, "done") || strings.HasPrefix(l, "awk") {
			commands = append(commands, strings.ReplaceAll(l, "NODE", "n1"))
		}
	}
	cmd := exec.Command("sh", "-c", "sha256sum --quiet -c SHA256SUMS\n"+strings.Join(commands, "\n")+"\ntrue")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || len(commands) != 5 {
		t.Fatalf("%v, %d commands: %s", err, len(commands), out)
	}
	return string(out)
}
