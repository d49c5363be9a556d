package abuse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// turnKeys brings the keys to a time. Should the nodes have agreed on another case key than this node had,
// the numbers of its measures are sealed anew and its measures named anew before anything else is done.
func (a *Admission) turnKeys(ctx context.Context, now time.Time) error {
	if err := a.keys.turn(ctx, now); err != nil {
		return err
	}
	if !a.keys.displacing() {
		return nil
	}
	if err := a.reseal(); err != nil {
		return fmt.Errorf("abuse: seal numbers anew: %w", err)
	}
	a.repseudonym(now)
	a.log.Info("the nodes have agreed on another case key; the numbers of measures were sealed anew")
	return a.keys.dropDisplaced()
}

// reseal seals every number under the case key in force. It may be cut off and begun again. A number that
// opens under no key is left as it is: a copy of its key may come back.
func (a *Admission) reseal() error {
	files, err := filepath.Glob(a.numberFile("*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		decision := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		text, err := a.openNumber(decision)
		if errors.Is(err, os.ErrNotExist) {
			continue // destroyed meanwhile
		}
		if err != nil {
			a.log.Error("the number of a measure does not open under any key", "decision", decision, "err", err)
			continue
		}
		sealed, err := a.keys.sealText(decision, text)
		if err == nil {
			err = a.writeNumber(decision, sealed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// repseudonym names the measures whose term is not over by the case key in force, whatever key their
// entries in the chain were named by.
func (a *Admission) repseudonym(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.ledger {
		if now.Before(c.Until) {
			a.rename(c)
		}
	}
	for _, id := range slices.Collect(maps.Keys(a.dockets.byID)) {
		a.renameDocket(id)
	}
}

// rename names one measure. A number that was destroyed leaves the name as it is. a.mu is held.
func (a *Admission) rename(c *Case) {
	if number, err := a.readNumber(c.Decision); err == nil {
		if name := a.keys.measure(number.E164); name != "" {
			c.pseudonym, c.named = name, true
		}
	}
}

// mend takes the number of a known measure from another node if this node's own does not open.
func (a *Admission) mend(decision, sealed string) error {
	if _, err := a.openNumber(decision); err == nil || errors.Is(err, os.ErrNotExist) {
		return nil // it opens, or it was destroyed
	}
	if _, err := a.keys.openText(decision, sealed); err != nil {
		return nil // no better
	}
	if err := a.writeNumber(decision, sealed); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rename(a.ledger[decision])
	return nil
}
