package abuse

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// vault is a vault in memory that can be away, and be emptied.
type vault struct {
	mu   sync.Mutex
	kept map[string][]byte
	away error
}

func (v *vault) Agree(_ context.Context, name string, fresh []byte) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away != nil {
		return nil, v.away
	}
	if v.kept == nil {
		v.kept = make(map[string][]byte)
	}
	if v.kept[name] == nil {
		v.kept[name] = bytes.Clone(fresh)
	}
	return v.kept[name], nil
}

func (v *vault) Forget(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.kept, name)
	return v.away
}

const keyLife = 90 * 24 * time.Hour

// noon is in the midst of an epoch.
var noon = time.Unix(1_772_000_000, 0)

func open(t *testing.T, dir string, v Vault, now time.Time) *keyring {
	t.Helper()
	k, err := openKeyring(dir, keyLife, v, now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *keyring) mustTurn(t *testing.T, now time.Time) {
	t.Helper()
	if err := k.turn(t.Context(), now); err != nil {
		t.Fatal(err)
	}
}

func TestKeysOfOneNode(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir, nil, noon)
	first := k.counters(mobile)
	if len(first) != 1 || first[0] == k.measure(mobile) || strings.Contains(first[0], "138") && len(first[0]) != 32 {
		t.Errorf("pseudonyms %v and %v", first, k.measure(mobile))
	}
	again := open(t, dir, nil, noon.Truncate(keyLife).Add(keyLife-1))
	if again.counters(mobile)[0] != first[0] || again.measure(mobile) != k.measure(mobile) {
		t.Error("a restart changed the pseudonyms")
	}
	for i := 1; i <= 3; i++ {
		k.mustTurn(t, noon.Add(time.Duration(i)*keyLife))
		next := k.counters(mobile)
		if len(next) != 2 || next[1] != first[0] {
			t.Fatalf("epoch %d: %v does not follow %v", i, next, first)
		}
		first = next
	}
	files, _ := filepath.Glob(filepath.Join(dir, "epoch-*.key"))
	if len(files) != 2 {
		t.Errorf("epochs kept: %v", files)
	}
	for _, f := range files {
		if info, _ := os.Stat(f); info.Mode().Perm() != 0o600 {
			t.Errorf("%s may be read by others: %v", f, info.Mode())
		}
	}

	sealed, err := k.sealText("d1", mobile)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := k.openText("d1", sealed); err != nil || text != mobile {
		t.Errorf("openText = %q, %v", text, err)
	}
	if _, err := k.openText("d2", sealed); err == nil {
		t.Error("a sealed number opened for another decision")
	}
	if _, err := k.openText("d1", "?"); err == nil {
		t.Error("no base64 was opened")
	}
	os.WriteFile(filepath.Join(dir, "case.key"), []byte("broken"), 0o600)
	if _, err := openKeyring(dir, keyLife, nil, noon); err == nil || !strings.Contains(err.Error(), "case.key") {
		t.Errorf("a broken key file: %v", err)
	}
}

// TestAnEpochOfItsOwnGetsTheNameOfAll: an epoch used to begin when its node first started.
func TestAnEpochOfItsOwnGetsTheNameOfAll(t *testing.T) {
	dir := t.TempDir()
	old := randomBytes(keyBytes)
	if err := writeKey(filepath.Join(dir, "epoch-1771900000.key"), old); err != nil {
		t.Fatal(err)
	}
	k := open(t, dir, nil, noon)
	if got := k.counters(mobile); len(got) != 1 || got[0] != pseudonym(old, purposeCounter, mobile) {
		t.Errorf("what was counted has lost its meaning: %v", got)
	}
	if _, err := os.Stat(k.path(epochName(noon.Truncate(keyLife)))); err != nil {
		t.Error(err)
	}
}

func TestNodesAgreeOnKeys(t *testing.T) {
	v := &vault{}
	one, two := open(t, t.TempDir(), v, noon), open(t, t.TempDir(), v, noon)
	if one.ready() || one.counters(mobile) != nil || one.measure(mobile) != "" {
		t.Error("a key is used before it is agreed")
	}
	if _, err := one.sealText("d1", mobile); !errors.Is(err, errKeys) {
		t.Errorf("sealText = %v", err)
	}
	one.mustTurn(t, noon)
	two.mustTurn(t, noon.Add(time.Hour))
	sameKeys(t, one, two, 2)

	// The vault comes back empty, and a node puts its copy back before the next comes.
	v.kept = nil
	one.mustTurn(t, noon)
	three := open(t, t.TempDir(), v, noon)
	three.mustTurn(t, noon)
	sameKeys(t, one, three, 2)

	// While the vault is away a node goes on with what was agreed; a new one has nothing.
	v.away = errors.New("away")
	if err := two.turn(t.Context(), noon); !errors.Is(err, v.away) || !two.ready() {
		t.Errorf("turn = %v, ready %v", err, two.ready())
	}
	four := open(t, t.TempDir(), v, noon)
	if err := four.turn(t.Context(), noon); !errors.Is(err, v.away) || four.ready() {
		t.Errorf("turn = %v, ready %v", err, four.ready())
	}
	v.away = nil
	four.mustTurn(t, noon)
	sameKeys(t, one, four, 2)
}

func sameKeys(t *testing.T, one, two *keyring, names int) {
	t.Helper()
	a, b := one.counters(mobile), two.counters(mobile)
	if len(a) < names || len(b) < names || a[0] != b[0] || one.measure(mobile) != two.measure(mobile) {
		t.Errorf("keys differ: %v and %v", a, b)
	}
}

// TestADisplacedKeyKeepsItsMeaning: a new node's offer reached an emptied vault before this node's copy.
func TestADisplacedKeyKeepsItsMeaning(t *testing.T) {
	v := &vault{}
	dir := t.TempDir()
	alone := open(t, dir, nil, noon)
	counted, named := alone.counters(mobile)[0], alone.measure(mobile)
	sealed, err := alone.sealText("d1", mobile)
	if err != nil {
		t.Fatal(err)
	}
	fresh := open(t, t.TempDir(), v, noon)
	fresh.mustTurn(t, noon)

	for range 2 { // and again after a restart, before anything was sealed anew
		k := open(t, dir, v, noon)
		k.mustTurn(t, noon)
		k.mustTurn(t, noon)
		sameKeys(t, k, fresh, 2)
		if got := k.counters(mobile); len(got) != 3 || got[1] != counted {
			t.Errorf("what was counted is not read any more: %v", got)
		}
		if k.measure(mobile) == named || !k.displacing() {
			t.Error("the measures keep the name of the displaced key")
		}
		if text, err := k.openText("d1", sealed); err != nil || text != mobile {
			t.Errorf("openText = %q, %v", text, err)
		}
	}
	k := open(t, dir, v, noon)
	k.mustTurn(t, noon)
	if err := k.dropDisplaced(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.openText("d1", sealed); err == nil || k.displacing() {
		t.Error("a destroyed key opens")
	}
}

func TestAnOldEpochIsDestroyedEverywhere(t *testing.T) {
	v := &vault{}
	one, two := open(t, t.TempDir(), v, noon), open(t, t.TempDir(), v, noon)
	one.mustTurn(t, noon)
	two.mustTurn(t, noon)
	first := v.kept["abuse."+epochName(noon.Truncate(keyLife))]
	one.mustTurn(t, noon.Add(2*keyLife))
	for name, key := range v.kept {
		if bytes.Equal(key, first) {
			t.Errorf("the vault still has it as %s", name)
		}
	}
	two.mustTurn(t, noon.Add(2*keyLife)) // a node that slept does not bring it back
	for _, k := range []*keyring{one, two} {
		files, _ := filepath.Glob(filepath.Join(k.dir, "epoch-*.key"))
		if len(files) != 2 {
			t.Errorf("epochs kept: %v", files)
		}
		for _, f := range files {
			if b, _ := os.ReadFile(f); strings.Contains(string(b), hex.EncodeToString(first)) {
				t.Errorf("%s still has it", f)
			}
		}
	}
	if len(v.kept) != 3 { // the case's, and two epochs'
		t.Errorf("the vault has %d keys", len(v.kept))
	}
}

func TestAVaultThatAnswersNonsense(t *testing.T) {
	v := &vault{kept: map[string][]byte{"abuse.case": []byte("short")}}
	if err := open(t, t.TempDir(), v, noon).turn(t.Context(), noon); err == nil {
		t.Error("a key of five bytes was taken")
	}
}
