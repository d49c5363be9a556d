package journal

import (
	"errors"
	"fmt"
	"time"
)

// Config is the section `journal`.
type Config struct {
	// Path is the SQLite file.
	Path string `yaml:"path"`
	// Buffer is how many acts may wait for the disk; beyond it timeline entries are dropped and
	// counted, and the others answer ErrFull. 64 to 1,000,000.
	Buffer int `yaml:"buffer"`
	// Patience is how long a call waits for the book; then it goes on, and the act is still written
	// when the disk answers. 10ms to 1m.
	Patience time.Duration `yaml:"patience"`
	// Retention is how long CDRs and timelines are kept. 24h and up.
	Retention time.Duration `yaml:"retention"`
	// LoadRetention is how long load samples are kept: they are evidence of hindrance (Art. 29) for
	// as long as a decision can be looked back upon. 24h and up.
	LoadRetention time.Duration `yaml:"load_retention"`
}

// Defaults is the section's default.
func Defaults() Config {
	return Config{
		Path:          "data/journal.db",
		Buffer:        8192,
		Patience:      500 * time.Millisecond,
		Retention:     180 * 24 * time.Hour,
		LoadRetention: 360 * 24 * time.Hour,
	}
}

// Validate tells everything that is wrong with the section.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Path == "" {
		bad("path: is empty; write a file, e.g. /var/lib/hotline/journal.db")
	}
	if c.Buffer < 64 || c.Buffer > 1_000_000 {
		bad("buffer: %d is out of range; write 64 to 1000000", c.Buffer)
	}
	if c.Patience < 10*time.Millisecond || c.Patience > time.Minute {
		bad("patience: %v is out of range; write 10ms to 1m", c.Patience)
	}
	if c.Retention < 24*time.Hour {
		bad("retention: %v is too short; write 24h or more", c.Retention)
	}
	if c.LoadRetention < 24*time.Hour {
		bad("load_retention: %v is too short; write 24h or more", c.LoadRetention)
	}
	return errors.Join(errs...)
}
