package staff

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Change is the last change of a register, as the directories of other nodes are told of it. What a page
// session is made of is never among them.
type Change struct {
	Kind    string          `json:"kind"` // person, secret, phone, token, seat or sitter
	Key     string          `json:"key"`
	Updated int64           `json:"updated"`        // ms since 1970; 0 for one that a first start made
	Origin  string          `json:"origin"`         // the directory in which it was made
	Gone    bool            `json:"gone,omitempty"` // it was taken away
	Body    json.RawMessage `json:"body,omitempty"`
}

const (
	// changesAtOnce bounds what Changes lists and Apply takes.
	changesAtOnce = 500
	// goneFor is how long it is remembered that something was taken away: longer than any token lives.
	goneFor = MaxTokenLife + 30*24*time.Hour
	maxBody = 16 << 10
	maxTime = 253_402_300_799_000 // the end of the year 9999
)

// Changes lists the registers that changed after a cursor, in the order in which they came to be so here, some
// hundred at once; "" is the beginning, and so is the cursor of another file. next is the cursor for what
// comes then; it equals since when there is nothing more.
func (d *Directory) Changes(ctx context.Context, since string) (changes []Change, next string, err error) {
	var id string
	if err := d.db.QueryRowContext(ctx, `SELECT id FROM directory`).Scan(&id); err != nil {
		return nil, since, fmt.Errorf("staff: %w", err)
	}
	seq := int64(0)
	if file, n, _ := strings.Cut(since, "-"); file == id {
		seq, _ = strconv.ParseInt(n, 10, 64) // what is no number is the beginning
	}
	rows, err := d.db.QueryContext(ctx, `SELECT kind, key, updated, origin, gone, body, seq FROM registers
		WHERE seq > ? ORDER BY seq LIMIT ?`, seq, changesAtOnce)
	if err != nil {
		return nil, since, fmt.Errorf("staff: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var c Change
		var body string
		if err := rows.Scan(&c.Kind, &c.Key, &c.Updated, &c.Origin, &c.Gone, &body, &seq); err != nil {
			return nil, since, fmt.Errorf("staff: %w", err)
		}
		c.Body = json.RawMessage(body)
		changes = append(changes, c)
	}
	if err := rows.Err(); err != nil {
		return nil, since, fmt.Errorf("staff: %w", err)
	}
	if len(changes) == 0 && strings.HasPrefix(since, id+"-") {
		return nil, since, nil
	}
	return changes, id + "-" + strconv.FormatInt(seq, 10), nil
}

// Apply takes changes of other directories, in any order and as often as they come: each register keeps the
// latest. It tells how many were new here; those are one entry of the audit log, since the persons who made
// them stand in the log of the node where they did. A change that makes no sense is named in the error, and
// the others are taken; one of a kind that only a newer version knows is kept for it.
func (d *Directory) Apply(ctx context.Context, changes []Change) (applied int, err error) {
	if len(changes) > changesAtOnce {
		return 0, fmt.Errorf("staff: %d changes at once; give %d at most", len(changes), changesAtOnce)
	}
	var wrong []error
	var good []Change
	for _, c := range changes {
		if err := d.valid(c); err != nil {
			d.metrics.exchange("refused", 1)
			wrong = append(wrong, fmt.Errorf("staff: change of %.16q %.64q: %w", c.Kind, c.Key, err))
		} else if !d.stale(c) {
			good = append(good, c)
		}
	}
	err = d.tx(ctx, func(tx *sql.Tx) error {
		taken := make(map[string]int) // by kind
		for _, c := range good {
			isNew, err := d.take(ctx, tx, c)
			if err != nil {
				return err
			}
			if isNew {
				applied++
				taken[c.Kind]++
			}
		}
		if applied == 0 {
			return nil
		}
		return d.record(ctx, note{"node", "staff.exchange", "", summary(taken)})
	})
	if err != nil {
		return 0, errors.Join(append(wrong, err)...)
	}
	d.metrics.exchange("applied", applied)
	d.metrics.exchange("known", len(changes)-len(wrong)-applied)
	return applied, errors.Join(wrong...)
}

// summary is how many registers of each kind changed.
func summary(taken map[string]int) map[string]string {
	detail := make(map[string]string)
	for _, kind := range slices.Sorted(maps.Keys(taken)) {
		detail[kind] = strconv.Itoa(taken[kind])
	}
	return detail
}

// take puts a change into its register if it is later than what is there.
func (d *Directory) take(ctx context.Context, tx *sql.Tx, c Change) (isNew bool, err error) {
	var have Change
	var body string
	err = tx.QueryRowContext(ctx, `SELECT updated, origin, gone, body FROM registers WHERE kind = ? AND key = ?`,
		c.Kind, c.Key).Scan(&have.Updated, &have.Origin, &have.Gone, &body)
	have.Body = json.RawMessage(body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return false, fmt.Errorf("staff: %w", err)
	case !c.after(have):
		return false, nil
	}
	if err := store(ctx, tx, c); err != nil {
		return false, err
	}
	return true, d.endSessions(ctx, tx, c)
}

// after orders the changes of one register, the same on all nodes.
func (c Change) after(have Change) bool {
	gone := func(c Change) int { return map[bool]int{true: 1}[c.Gone] }
	return cmp.Or(cmp.Compare(c.Updated, have.Updated), cmp.Compare(c.Origin, have.Origin),
		cmp.Compare(gone(c), gone(have)), cmp.Compare(string(c.Body), string(have.Body))) > 0
}

// endSessions ends the page sessions on this node of who was disabled, or given another password, on another.
func (d *Directory) endSessions(ctx context.Context, tx *sql.Tx, c Change) error {
	person, which, _ := strings.Cut(c.Key, "/")
	switch {
	case c.Kind == kindSecret && which == "password":
	case c.Kind == kindPerson:
		off, err := exists(ctx, tx, `SELECT 1 FROM people WHERE id = ? AND disabled`, person)
		if err != nil || !off {
			return err
		}
	default:
		return nil
	}
	return d.logOut(ctx, tx, person)
}

// stale tells whether a change says that something was taken away so long ago that nobody remembers it.
func (d *Directory) stale(c Change) bool {
	return c.Gone && d.now().Sub(time.UnixMilli(c.Updated)) > goneFor
}

var (
	validKind   = regexp.MustCompile(`^[a-z_]{1,32}$`)
	validOrigin = regexp.MustCompile(`^[0-9a-f]{1,64}$`)
	validHex    = map[int]*regexp.Regexp{32: regexp.MustCompile(`^[0-9a-f]{32}$`), 64: regexp.MustCompile(`^[0-9a-f]{64}$`)}
	errSense    = errors.New("it makes no sense")
)

// valid holds a change to what this directory would write itself.
func (d *Directory) valid(c Change) error {
	if !validKind.MatchString(c.Kind) || !json.Valid(c.Body) || c.Updated < 0 || c.Updated > maxTime || !validOrigin.MatchString(c.Origin) || len(c.Body) > maxBody || len(c.Key) > 512 {
		return errSense
	}
	name, rest, _ := strings.Cut(c.Key, "/")
	var ok bool
	var err error
	switch c.Kind {
	case kindPerson:
		var p Person
		err = read(c, &p)
		ok = !c.Gone && p.ID == c.Key
		err = errors.Join(err, p.check())
	case kindSecret:
		var s secret
		err = read(c, &s)
		_, known := d.hash.parse(s.Hash)
		ok = !c.Gone && known && validID.MatchString(name) && (rest == "password" || rest == "pin")
	case kindPhone:
		var p phone
		err = read(c, &p)
		ok = !c.Gone && validExtension.MatchString(name) && rest != "" && validHex[32].MatchString(p.MD5) && validHex[64].MatchString(p.SHA256)
	case kindToken:
		var t token
		err = read(c, &t)
		ok = validID.MatchString(name) && (c.Gone || validHex[64].MatchString(t.Hash) && t.Expires-t.Created <= int64(MaxTokenLife/time.Second))
	case kindSeat:
		var s seat
		err = read(c, &s)
		ok = validExtension.MatchString(c.Key) && (c.Gone || validID.MatchString(s.Person))
	case kindSitter:
		var s sitter
		err = read(c, &s)
		ok = validID.MatchString(c.Key) && (c.Gone || validExtension.MatchString(s.Extension))
	default:
		return nil
	}
	if err == nil && !ok {
		err = errSense
	}
	return err
}

func read(c Change, body any) error { return json.Unmarshal(c.Body, body) }
