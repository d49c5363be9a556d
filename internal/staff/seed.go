package staff

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
)

// Credential is what a person of the first start logs in with. It is shown once and kept nowhere.
type Credential struct {
	Person   Person
	Password string // the console's
	PIN      string // for logging in on a phone; "" without an extension
	Secret   string // by which the phone of the extension registers; "" without one
}

// seedAgents are the extensions of the agents that a first start makes.
var seedAgents = []string{"1001", "1002", "1003"}

// Seed makes the people of a first start, with secrets of their own: agents 1001 to 1003, each with a
// phone under realm, and one who keeps and supervises. In a directory that has people already it does
// nothing and returns none. All are made, or nobody is. On several nodes what one of them was seeded with
// loses against any real change; if two were seeded, the same one's holds on all.
func (d *Directory) Seed(ctx context.Context, realm string) ([]Credential, error) {
	var people int
	if err := d.db.QueryRowContext(ctx, `SELECT count(*) FROM people`).Scan(&people); err != nil {
		return nil, fmt.Errorf("staff: %w", err)
	}
	if people > 0 {
		return nil, nil
	}
	creds := []Credential{{Person: Person{
		ID: "admin", Name: "管理员", Roles: []Role{Admin, Supervisor}, Language: "zh",
	}}}
	for _, ext := range seedAgents {
		creds = append(creds, Credential{Person: Person{
			ID: ext, Name: "坐席" + ext, Roles: []Role{Agent}, Extension: ext,
			Queues: map[string]int{"default": 1}, Language: "zh",
		}, PIN: newPIN(), Secret: newPassword()})
	}
	for i := range creds {
		creds[i].Password = newPassword()
	}
	if err := d.plant(ctx, creds, realm); err != nil {
		return nil, err
	}
	return creds, nil
}

// plant stores the people of a first start in one transaction.
func (d *Directory) plant(ctx context.Context, creds []Credential, realm string) error {
	return d.tx(ctx, func(tx *sql.Tx) error {
		for _, c := range creds {
			if err := d.plantOne(ctx, tx, c, realm); err != nil {
				return err
			}
		}
		return d.record(ctx, note{"node", "staff.first_start", "", map[string]string{"people": strconv.Itoa(len(creds))}})
	})
}

func (d *Directory) plantOne(ctx context.Context, tx *sql.Tx, c Credential, realm string) error {
	id := c.Person.ID
	bodies := map[[2]string]any{{kindPerson, id}: c.Person}
	for which, text := range map[string]string{"password": c.Password, "pin": c.PIN} {
		if text == "" {
			continue
		}
		hash, err := d.hash.hash(ctx, text)
		if err != nil {
			return err
		}
		bodies[[2]string{kindSecret, id + "/" + which}] = secret{hash}
	}
	if c.Secret != "" {
		bodies[[2]string{kindPhone, c.Person.Extension + "/" + realm}] = ha1(c.Person.Extension, realm, c.Secret)
	}
	for name, body := range bodies {
		if err := d.change(ctx, tx, Change{Kind: name[0], Key: name[1], Updated: seeded}, body); err != nil {
			return err
		}
	}
	return nil
}
