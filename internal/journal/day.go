package journal

import (
	"context"
	"database/sql"
	"time"
)

// Tally is what a queue did since a moment.
type Tally struct {
	Queue     string `json:"queue"`
	Offered   int    `json:"offered"`   // callers who entered
	Answered  int    `json:"answered"`  // of them, joined with an agent
	InTime    int    `json:"in_time"`   // of those, within 15 s (GB/T 33358-2016)
	Abandoned int    `json:"abandoned"` // of them, gone before an agent
}

// Day sums the queues' calls that started since a moment. It reads every one of them: ask now and then.
func (j *Journal) Day(ctx context.Context, since time.Time) (map[string]Tally, error) {
	rows, err := query(ctx, j.r, scanTally, `
		WITH day AS (
			SELECT queue, outcome,
				json_extract(record, '$.connected') >= '0002' AS answered,
				(julianday(json_extract(record, '$.connected')) - julianday(json_extract(record, '$.queued'))) * 86400 AS wait
			FROM cdr WHERE started >= ? AND queue <> '')
		SELECT queue, count(*), sum(answered), sum(answered AND wait <= 15), sum(outcome = 'abandoned')
		FROM day GROUP BY queue`, since.UnixMicro())
	if err != nil {
		return nil, err
	}
	day := make(map[string]Tally, len(rows))
	for _, t := range rows {
		day[t.Queue] = t
	}
	return day, nil
}

func scanTally(rows *sql.Rows) (t Tally, err error) {
	err = rows.Scan(&t.Queue, &t.Offered, &t.Answered, &t.InTime, &t.Abandoned)
	return t, err
}
