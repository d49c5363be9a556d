package staff

import (
	"context"
	"encoding/json"
	"errors"
)

// Change is a row of the directory as the directories of other gateways are told of it.
type Change struct {
	Kind    string          `json:"kind"` // person, secret, phone, token or seat
	Key     string          `json:"key"`
	Updated int64           `json:"updated"`        // ms since 1970, never less than that of the row before; 0 for one that was seeded
	Origin  string          `json:"origin"`         // the directory in which it was changed
	Gone    bool            `json:"gone,omitempty"` // it was taken away
	Body    json.RawMessage `json:"body,omitempty"`
}

// Changes lists rows that changed after a cursor, oldest first, some hundred at most; "" is the beginning.
// next is the cursor for what comes then; it equals since when there is nothing more.
func (d *Directory) Changes(ctx context.Context, since string) (changes []Change, next string, err error) {
	return nil, since, errors.ErrUnsupported
}

// Apply takes rows of another directory, in any order and as often as they come: of each row the latest
// change stays. It tells how many were new here.
func (d *Directory) Apply(ctx context.Context, changes []Change) (applied int, err error) {
	return 0, errors.ErrUnsupported
}
