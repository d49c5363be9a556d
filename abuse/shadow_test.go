package abuse

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/configs/policy"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/store/storetest"
)

// harder is a policy that warns at three calls in the hour, and leaves every level to managers.
func harder(t *testing.T) string {
	t.Helper()
	text := strings.NewReplacer("version: P0", "version: P1", "{calls: 6, within: 1h}", "{calls: 3, within: 1h}",
		"{calls: 10, within: 24h}", "{calls: 50, within: 24h}", "[[supervisor, manager],", "[[manager],").Replace(string(policy.Art29))
	path := filepath.Join(t.TempDir(), "p1.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestAShadowTouchesNobody runs one caller's story with a harder policy beside P0: what P0 decides is decided, and
// what the other would have done is counted.
func TestAShadowTouchesNobody(t *testing.T) {
	n := startWith(t, "n1", t.TempDir(), &clock{at: time.Now().Truncate(time.Millisecond)}, Deps{Store: storetest.Open(t, ""), Load: busy})
	p, err := Config{ShadowPolicyFile: harder(t)}.Shadow()
	if err != nil {
		t.Fatal(err)
	}
	n.shadow = newShadow(p, n.clock.now())
	n.sync()
	id := n.proposed()
	n.expect("i1", session.AdmitWatch).Lease.Release()
	if m, err := n.Matter(id); err != nil || m.Shadow.Stage != StageProposed || m.Shadow.Level != 1 || m.Lacks != ReasonNone || m.Shadow.Term != 24*time.Hour {
		t.Errorf("the matter: %+v, %v", m.Shadow, err)
	}
	if _, err := n.Approve(t.Context(), id, "sup1", Supervisor, "no request in six calls"); err != nil {
		t.Errorf("the policy in force lets a supervisor approve: %v", err)
	}
	n.expect("i2", session.IVROnly)
	s := n.Shadow()
	if s.Version != "P1" || len(s.Invites) != 2 || s.Invites[0].N+s.Invites[1].N != 2 {
		t.Errorf("of INVITEs: %+v", s)
	}
	want := ShadowCount{Act: shadowApprove, Live: "", Shadow: string(ReasonRole), N: 1}
	if len(s.Acts) == 0 || s.Acts[0] != want {
		t.Errorf("of acts: %+v, want %+v first", s.Acts, want)
	}
	if got := testutil.ToFloat64(n.metrics.shadow.WithLabelValues(shadowApprove, "differs")); got != 1 {
		t.Errorf("approvals that differ: %v", got)
	}
}

// TestAShadowWarnsEarlier: under three calls the two policies part, and only the one in force is obeyed.
func TestAShadowWarnsEarlier(t *testing.T) {
	n := start(t, storetest.Open(t, ""), "n1", t.TempDir())
	p, err := Config{ShadowPolicyFile: harder(t)}.Shadow()
	if err != nil {
		t.Fatal(err)
	}
	n.shadow = newShadow(p, n.clock.now())
	n.sync()
	for _, id := range []string{"a", "b", "c"} {
		n.outcome(id, 30*time.Minute, time.Minute)
	}
	n.expect("d", session.Admit).Lease.Release()
	want := ShadowCount{Act: shadowInvite, Live: string(session.Admit), Shadow: string(session.AdmitWatch), N: 1}
	if s := n.Shadow(); len(s.Invites) != 1 || s.Invites[0] != want {
		t.Errorf("%+v, want %+v", s.Invites, want)
	}
	if n.kept() != 50 {
		t.Errorf("%d calls are kept, the other policy asks for 50", n.kept())
	}
}

func TestAShadowMustBeReadable(t *testing.T) {
	c := Defaults()
	c.ShadowPolicyFile = filepath.Join(t.TempDir(), "none.yaml")
	if err := c.Validate(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "shadow_policy_file: ") {
		t.Errorf("%v", err)
	}
	n := start(t, storetest.Open(t, ""), "n1", t.TempDir())
	if n.Shadow() != nil {
		t.Error("there is a shadow without a policy")
	}
}
