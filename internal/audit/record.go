package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// MaxLine bounds a line of the log, in bytes with its newline.
const MaxLine = 64 << 10

// ErrTooLarge refuses an entry whose line would pass [MaxLine].
var ErrTooLarge = errors.New("audit: the entry is longer than 64 KiB")

// ErrClearNumber refuses an entry that holds what looks like a telephone number in clear.
var ErrClearNumber = errors.New("audit: the entry holds a telephone number in clear; give a commitment or a pseudonym")

// Entry is one act.
type Entry struct {
	Actor   string            `json:"actor"`             // a person's id, or "node" for the gateway itself
	Act     string            `json:"act"`               // what was done, "measure.set"
	Subject string            `json:"subject,omitempty"` // to what: an id, a pseudonym, a commitment
	Call    string            `json:"call,omitempty"`    // the call that it belongs to
	Detail  map[string]string `json:"detail,omitempty"`  // facts without personal data
}

// Record is an entry in its place in a chain.
type Record struct {
	Seq  uint64    `json:"seq"` // from 1, without gaps
	At   time.Time `json:"at"`
	Node string    `json:"node"`
	Prev string    `json:"prev"` // the hash of the line before, 64 zeros at the first
	Entry
	Hash string `json:"-"`
}

// Receipt says where an entry stands. The newest one is the head of the chain.
type Receipt struct {
	Node string `json:"node"`
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

const hashDigits = 2 * sha256.Size

// genesis is what the first line of a chain follows.
var genesis = string(bytes.Repeat([]byte("0"), hashDigits))

// A line is the record's JSON object with its hash put in as the last member. The hash covers the exact
// bytes before it, so a reader needs no canonical form of JSON.
const (
	hashOpen  = `,"hash":"`
	hashClose = `"}`
	tailLen   = len(hashOpen) + hashDigits + len(hashClose)
)

// seal makes the line of a record, newline included, and sets its hash.
func (r *Record) seal() ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("audit: entry %q: %w", r.Act, err)
	}
	body = body[:len(body)-1] // the closing brace comes after the hash
	if len(body)+tailLen+1 > MaxLine {
		return nil, ErrTooLarge
	}
	r.Hash = digest(body)
	return fmt.Appendf(body, "%s%s%s\n", hashOpen, r.Hash, hashClose), nil
}

// parse reads a line without its newline and checks its own hash.
func parse(line []byte) (Record, error) {
	cut := len(line) - tailLen
	if cut < 0 || !bytes.HasPrefix(line[cut:], []byte(hashOpen)) || !bytes.HasSuffix(line, []byte(hashClose)) {
		return Record{}, errors.New("not a line of an audit log")
	}
	body := line[:cut]
	hash := string(line[cut+len(hashOpen) : len(line)-len(hashClose)])
	if digest(body) != hash {
		return Record{}, errors.New("the line was changed: its hash does not fit")
	}
	var r Record
	if err := json.Unmarshal(append(bytes.Clone(body), '}'), &r); err != nil {
		return Record{}, fmt.Errorf("not a record: %w", err)
	}
	r.Hash = hash
	return r, nil
}

// follows checks that r is the line after prev.
func (r *Record) follows(prev Receipt) error {
	switch {
	case prev.Node != "" && r.Node != prev.Node:
		return fmt.Errorf("the line is of node %q, the chain of %q", r.Node, prev.Node)
	case r.Seq != prev.Seq+1:
		return fmt.Errorf("the line has number %d where %d belongs", r.Seq, prev.Seq+1)
	case r.Prev != prev.Hash:
		return errors.New("the line does not follow the one before it: a line was changed, removed or put in")
	}
	return nil
}

func (r *Record) receipt() Receipt { return Receipt{Node: r.Node, Seq: r.Seq, Hash: r.Hash} }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// clearNumber finds 10 to 15 digits that stand alone: a national number with its area, a mobile number,
// or E.164. Identifiers with letters among the digits, and dates with their dashes, pass.
var clearNumber = regexp.MustCompile(`(?:^|[^0-9A-Za-z])\+?[0-9]{10,15}(?:$|[^0-9A-Za-z])`)

// check refuses what must not stand in a log.
func (e *Entry) check() error {
	if e.Actor == "" || e.Act == "" {
		return errors.New("audit: an entry needs an actor and an act")
	}
	if slices.ContainsFunc([]string{e.Actor, e.Act, e.Subject, e.Call}, clearNumber.MatchString) {
		return ErrClearNumber
	}
	for k, v := range e.Detail {
		if clearNumber.MatchString(k) || clearNumber.MatchString(v) {
			return fmt.Errorf("detail %q: %w", k, ErrClearNumber)
		}
	}
	return nil
}

// Line is the record's line as the chain has it, with its newline.
func (r Record) Line() ([]byte, error) {
	had := r.Hash
	line, err := r.seal()
	if err == nil && r.Hash != had {
		err = fmt.Errorf("audit: line %d does not come out as it was written", r.Seq)
	}
	return line, err
}
