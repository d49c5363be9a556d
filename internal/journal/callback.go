package journal

import (
	"context"
	"database/sql"
	"time"
)

// CallBackRecord is a node's copy of a caller who is owed a call back. The body is its owner's; a number in it
// is sealed.
type CallBackRecord struct {
	ID      string
	Updated time.Time
	Open    bool
	Body    []byte
}

// closedCallBacks is how long the copy of a closed call back is kept.
const closedCallBacks = 14 * 24 * time.Hour

// SaveCallBack keeps a call back in place of an older copy. It does not wait for the disk.
func (j *Journal) SaveCallBack(_ context.Context, r CallBackRecord) error {
	return j.push(act{kind: "callback", do: func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO callback (id, updated, open, body) VALUES (?,?,?,?)
			ON CONFLICT (id) DO UPDATE SET updated = excluded.updated, open = excluded.open, body = excluded.body
			WHERE excluded.updated >= callback.updated`, r.ID, r.Updated.UnixMicro(), r.Open, r.Body)
		return err
	}})
}

// CallBackRecords returns every copy, the latest first.
func (j *Journal) CallBackRecords(ctx context.Context) ([]CallBackRecord, error) {
	return query(ctx, j.r, func(rows *sql.Rows) (r CallBackRecord, err error) {
		var updated int64
		err = rows.Scan(&r.ID, &updated, &r.Open, &r.Body)
		r.Updated = time.UnixMicro(updated)
		return r, err
	}, "SELECT id, updated, open, body FROM callback ORDER BY updated DESC")
}
