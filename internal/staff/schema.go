package staff

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
)

// The kinds of registers.
const (
	kindPerson = "person" // id: a Person
	kindSecret = "secret" // id/password or id/pin: its hash
	kindPhone  = "phone"  // extension/realm: the HA1 hashes
	kindToken  = "token"  // id/name: an API token
	kindSeat   = "seat"   // extension: who sat down there last
	kindSitter = "sitter" // id: where the person sat down last
)

// schema has one table for all that nodes exchange: registers, each with its last change. The views say what
// follows from them, the same on every node that has the same registers.
//
//   - An extension on two desks is that of the later change.
//   - Of two people at one phone the later is bound, and the other nowhere; a person is bound where they sat
//     down last. So a binding holds while the seat and the person name one another.
//   - Two nodes may each disable the other's last administrator: the later of the two may still log in.
const schema = `
CREATE TABLE IF NOT EXISTS directory (id TEXT NOT NULL, seq INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS registers (
	kind TEXT NOT NULL, key TEXT NOT NULL, updated INTEGER NOT NULL, origin TEXT NOT NULL,
	gone INTEGER NOT NULL, body TEXT NOT NULL, seq INTEGER NOT NULL,
	PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS registers_by_seq ON registers (seq);
CREATE INDEX IF NOT EXISTS persons_by_extension ON registers (json_extract(body, '$.extension')) WHERE kind = 'person';
CREATE INDEX IF NOT EXISTS tokens_by_hash ON registers (json_extract(body, '$.hash')) WHERE kind = 'token';
CREATE TABLE IF NOT EXISTS page_sessions (
	hash TEXT PRIMARY KEY, person TEXT NOT NULL, source TEXT NOT NULL, created INTEGER NOT NULL, seen INTEGER NOT NULL
) STRICT;
CREATE VIEW IF NOT EXISTS admins AS
	SELECT key, updated, origin, COALESCE(json_extract(body, '$.disabled'), 0) AS disabled FROM registers
	WHERE kind = 'person' AND json_extract(body, '$.roles') LIKE '%"admin"%';
CREATE VIEW IF NOT EXISTS people AS
	SELECT p.key AS id, p.body AS body,
		CASE WHEN EXISTS (SELECT 1 FROM registers o WHERE o.kind = 'person' AND o.key <> p.key
			AND json_extract(o.body, '$.extension') = json_extract(p.body, '$.extension')
			AND (o.updated, o.origin, o.key) > (p.updated, p.origin, p.key))
		THEN '' ELSE COALESCE(json_extract(p.body, '$.extension'), '') END AS extension,
		CASE WHEN NOT COALESCE(json_extract(p.body, '$.disabled'), 0) THEN 0
			WHEN EXISTS (SELECT 1 FROM admins WHERE key = p.key) AND NOT EXISTS (SELECT 1 FROM admins o
				WHERE NOT o.disabled OR (o.updated, o.origin, o.key) > (p.updated, p.origin, p.key))
		THEN 0 ELSE 1 END AS disabled
	FROM registers p WHERE p.kind = 'person';
CREATE VIEW IF NOT EXISTS bindings AS
	SELECT s.key AS extension, w.key AS person FROM registers s
	JOIN registers w ON w.kind = 'sitter' AND w.key = json_extract(s.body, '$.person') AND json_extract(w.body, '$.extension') = s.key
	JOIN people p ON p.id = w.key AND NOT p.disabled
	WHERE s.kind = 'seat' AND NOT s.gone AND NOT w.gone;`

// moved puts what a file of the first form has into registers, as changes before any real one, yet after what
// a first start makes. The file did not say which of the two it was.
const moved = `
CREATE TEMP TABLE old (kind TEXT, key TEXT, body TEXT);
INSERT INTO old SELECT 'person', id, json_patch(json_object('id', id, 'name', name, 'roles', json(roles), 'queues', json(queues),
	'language', language), json_object('extension', extension, 'disabled', iif(disabled, json('true'), NULL))) FROM people;
INSERT INTO old SELECT 'secret', id || '/password', json_object('hash', password) FROM people WHERE password <> '';
INSERT INTO old SELECT 'secret', id || '/pin', json_object('hash', pin) FROM people WHERE pin <> '';
INSERT INTO old SELECT 'phone', extension || '/' || realm, json_object('md5', md5, 'sha256', sha256) FROM phones;
INSERT INTO old SELECT 'token', person || '/' || name, json_object('hash', hash, 'created', created, 'expires', expires) FROM tokens;
INSERT INTO old SELECT 'seat', extension, json_object('person', person, 'since', since) FROM bindings;
INSERT INTO old SELECT 'sitter', person, json_object('extension', extension) FROM bindings;
CREATE TEMP TABLE old_sessions AS SELECT hash, person, source, created, seen FROM sessions;
DROP TABLE sessions; DROP TABLE tokens; DROP TABLE bindings; DROP TABLE phones; DROP TABLE people;`

const movedIn = `
INSERT INTO registers SELECT kind, key, 1, (SELECT id FROM directory), 0, body, ROW_NUMBER() OVER (ORDER BY rowid) FROM old;
UPDATE directory SET seq = (SELECT count(*) FROM old);
INSERT INTO page_sessions SELECT * FROM old_sessions;
DROP TABLE old; DROP TABLE old_sessions;`

// prepare brings the file to the present form, in one transaction.
func prepare(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var first bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'people')`).Scan(&first); err != nil {
		return err
	}
	steps := []string{schema}
	if first {
		steps = []string{moved, schema}
	}
	for _, step := range steps {
		if _, err := tx.ExecContext(ctx, step); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO directory SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM directory)`,
		hex.EncodeToString(random(8))); err != nil {
		return err
	}
	if first {
		if _, err := tx.ExecContext(ctx, movedIn); err != nil {
			return fmt.Errorf("move the people to the present form: %w", err)
		}
	}
	return tx.Commit()
}
