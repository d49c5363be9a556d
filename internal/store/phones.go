package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// The bounds of the phones that the nodes share.
const (
	maxPhones     = 20_000
	maxExtension  = 32 // phones of one extension
	maxPhoneName  = 256
	maxPhoneBytes = 4096
	phonesSwept   = 20  // most that one Put sweeps: more than it adds, so that what is over cannot pile up
	phonesPage    = 500 // most that one script reads: about a millisecond of Redis

	keyPhonesDue      = "hotline:{phones}:due"
	keyPhoneExtension = "hotline:{phones}:x" // and ":" and the extension
)

// ErrPhonesFull says that another phone would be one too many, in all or of its extension.
var ErrPhonesFull = errors.New("store: no room for another phone")

// Phones is where the agents' phones are, shared by all nodes. What a binding says is its owner's.
//
//	hotline:{phones}:due  zset  "extension key" by the ms at which it is over
//	hotline:{phones}:x:E  hash  of extension E: key -> "ms value"
//
// Times lie in the values and are compared with Redis' clock by each reader: a key that expires could hold
// one phone alone, and the embedded server's would stand still.
type Phones struct {
	fast, slow             redis.UniversalClient
	put, get, remove, list *redis.Script
}

// NewPhones makes them known.
func NewPhones(s *Store) *Phones {
	return &Phones{fast: s.Client(), slow: s.Blocking(), put: s.own("phones_put"), get: s.own("phones_get"),
		remove: s.own("phones_remove"), list: s.own("phones_list")}
}

// Put notes a binding of an extension until ttl is over, in the place of the one with the same key.
func (p *Phones) Put(ctx context.Context, extension, key string, value []byte, ttl time.Duration) error {
	if err := checkPhone(extension, key); err != nil {
		return err
	}
	if len(value) > maxPhoneBytes || ttl < time.Millisecond {
		return fmt.Errorf("store: phone %s: %d bytes for %v; a binding has at most %d and lasts 1 ms at least", extension, len(value), ttl, maxPhoneBytes)
	}
	err := p.put.Run(ctx, p.fast, []string{keyPhoneExtension, keyPhonesDue, extensionKey(extension)},
		extension, key, value, ttl.Milliseconds(), maxPhones, maxExtension, phonesSwept).Err()
	if err != nil {
		return fmt.Errorf("note where phone %s is: %w", extension, named(err, "PHONESFULL", ErrPhonesFull))
	}
	return nil
}

// Get returns the bindings of an extension.
func (p *Phones) Get(ctx context.Context, extension string) ([][]byte, error) {
	if err := checkPhone(extension, "-"); err != nil {
		return nil, err
	}
	values, err := p.get.Run(ctx, p.fast, []string{extensionKey(extension)}).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("ask where phone %s is: %w", extension, err)
	}
	out := make([][]byte, len(values))
	for i, v := range values {
		out[i] = []byte(v)
	}
	return out, nil
}

// Remove takes a binding away; that it is not there is no error.
func (p *Phones) Remove(ctx context.Context, extension, key string) error {
	if err := checkPhone(extension, key); err != nil {
		return err
	}
	if err := p.remove.Run(ctx, p.fast, []string{keyPhonesDue, extensionKey(extension)}, extension, key).Err(); err != nil {
		return fmt.Errorf("take phone %s away: %w", extension, err)
	}
	return nil
}

// List returns all bindings, in no order. It reads them page by page, so that Redis serves others meanwhile.
func (p *Phones) List(ctx context.Context) ([][]byte, error) {
	seen, out := make(map[string]bool), [][]byte(nil)
	for cursor := "0"; ; {
		page, err := p.list.Run(ctx, p.slow, []string{keyPhoneExtension, keyPhonesDue}, cursor, phonesPage).StringSlice()
		if err != nil {
			return nil, fmt.Errorf("list the phones: %w", err)
		}
		for i := 1; i+1 < len(page); i += 2 {
			if !seen[page[i]] {
				seen[page[i]] = true
				out = append(out, []byte(page[i+1]))
			}
		}
		if cursor = page[0]; cursor == "0" {
			return out, nil
		}
	}
}

func extensionKey(extension string) string { return keyPhoneExtension + ":" + extension }

// checkPhone keeps names short, and an extension without the space that parts it from the key.
func checkPhone(extension, key string) error {
	if extension == "" || strings.ContainsAny(extension, " \t\r\n\v\f") || key == "" || len(extension)+len(key) > maxPhoneName {
		return fmt.Errorf("store: phone %q, key %q: both are needed, %d bytes together at most, and an extension without spaces", extension, key, maxPhoneName)
	}
	return nil
}
