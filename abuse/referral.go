package abuse

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/hotline12345/gateway/internal/audit"
)

// ReasonNotCandidate refuses a referral of a caller who has too few confirmed decisions (29(3)).
const ReasonNotCandidate Reason = "not_candidate"

//go:embed referral.txt
var referralReadme []byte

// Enclosed is a file of a referral.
type Enclosed struct {
	Name string
	Data []byte
}

// ProposeReferral records that a leader proposes to refer a matter to the police, sealed to their age key. Errors:
// [ErrUnknown], a key that does not read, those of the audit log, and a *session.Refusal.
func (a *Admission) ProposeReferral(ctx context.Context, id, recipient, reason, by string, role Role) error {
	if _, err := age.ParseX25519Recipient(recipient); err != nil {
		return fmt.Errorf("abuse: the recipient: %w; write their public key, age1…", err)
	}
	if role != Supervisor && role != Manager {
		return refused(ReasonRole)
	}
	return a.refer(ctx, id, Event{Kind: EventReferPropose, Recipient: recipient, Reason: reason, By: by, Role: role})
}

// Refer records that another person, a manager, refers a matter as it was proposed, and returns it. Errors are
// those of ProposeReferral.
func (a *Admission) Refer(ctx context.Context, id, reason, by string, role Role) (Matter, error) {
	m, err := a.Matter(id)
	if err != nil {
		return Matter{}, err
	}
	proposal := m.referral()
	switch {
	case proposal == nil:
		return Matter{}, refused(ReasonNoProposal)
	case proposal.By == by:
		return Matter{}, refused(ReasonConflict)
	case role != Manager:
		return Matter{}, refused(ReasonRole)
	}
	if err := a.refer(ctx, id, Event{Kind: EventRefer, Recipient: proposal.Recipient, Reason: reason, By: by, Role: role}); err != nil {
		return Matter{}, err
	}
	return a.Matter(id)
}

// referral is the proposal to refer the matter that waits, or nil.
func (m Matter) referral() *Event {
	for _, e := range slices.Backward(m.Events) {
		switch e.Kind {
		case EventReferPropose:
			return &e
		case EventRefer:
			return nil
		default:
		}
	}
	return nil
}

func (a *Admission) refer(ctx context.Context, id string, e Event) error {
	m, err := a.Matter(id)
	switch {
	case err != nil:
		return err
	case !m.Refer:
		return refused(ReasonNotCandidate)
	}
	n, err := a.Caller(id)
	if err != nil {
		return err
	}
	e.At = a.now().UTC().Truncate(time.Millisecond)
	_, err = a.put(ctx, n, e.By, e)
	return err
}

// WriteReferral writes the file of a matter that was referred: a tar archive, encrypted to the recipient that two
// persons named. It holds the caller's number, the matter, its lines of this node's audit chain with the hashes that
// tie them to its head, what is enclosed, and a README. Errors: those of the chain and of w.
func (a *Admission) WriteReferral(w io.Writer, m Matter, enclosed []Enclosed) error {
	last := m.Events[len(m.Events)-1]
	to, err := age.ParseX25519Recipient(last.Recipient)
	if last.Kind != EventRefer || err != nil {
		return errors.Join(refused(ReasonNoProposal), err)
	}
	number, err := a.Caller(m.ID)
	if err != nil {
		return err
	}
	matter, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	chain, err := a.chainOf(m)
	if err != nil {
		return err
	}
	files := slices.Concat([]Enclosed{{"README.txt", referralReadme}, {"caller.txt", []byte(number.E164 + "\n")}, {"matter.json", append(matter, '\n')}},
		chain, enclosed)
	sealed, err := age.Encrypt(w, to)
	if err != nil {
		return fmt.Errorf("abuse: referral: %w", err)
	}
	if err := writeTar(sealed, files, last.At); err != nil {
		return fmt.Errorf("abuse: referral: %w", err)
	}
	return sealed.Close()
}

// writeTar writes the files, and a list of their hashes as sha256sum reads it.
func writeTar(w io.Writer, files []Enclosed, at time.Time) error {
	var sums bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(f.Data), f.Name)
	}
	out := tar.NewWriter(w)
	for _, f := range append(files, Enclosed{"SHA256SUMS", sums.Bytes()}) {
		if err := out.WriteHeader(&tar.Header{Name: f.Name, Mode: 0o600, Size: int64(len(f.Data)), ModTime: at}); err != nil {
			return err
		}
		if _, err := out.Write(f.Data); err != nil {
			return err
		}
	}
	return out.Close()
}

// chainOf is what this node's chain has of a matter: its lines, and of every line its number and hashes, which say
// nothing of anybody.
func (a *Admission) chainOf(m Matter) ([]Enclosed, error) {
	var lines, links bytes.Buffer
	for rec, err := range audit.Records(a.audit.Dir(), a.audit.Node()) {
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&links, "%d\t%s\t%s\n", rec.Seq, rec.Prev, rec.Hash)
		if rec.Subject == m.ID || slices.ContainsFunc(m.Cases, func(c Case) bool { return c.Decision == rec.Detail["decision"] }) {
			line, err := rec.Line()
			if err != nil {
				return nil, err
			}
			lines.Write(line)
		}
	}
	node := strings.ReplaceAll(a.audit.Node(), "/", "_")
	return []Enclosed{{"audit/" + node + ".jsonl", lines.Bytes()}, {"audit/" + node + ".links.tsv", links.Bytes()}}, nil
}
