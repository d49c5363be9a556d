package staff

import (
	"errors"
	"fmt"
	"time"
)

// Config is the section `staff` of the configuration.
type Config struct {
	// SessionIdle ends a console session that was not used for so long: 1 min to 24 h.
	SessionIdle time.Duration `yaml:"session_idle"`
	// SessionMax ends a console session whatever its use: SessionIdle to 168 h.
	SessionMax time.Duration `yaml:"session_max"`
	// AccountTries are the failed log-ins that an account may have at once, 3 to 20.
	AccountTries int `yaml:"account_tries"`
	// SourceTries are the failed log-ins that a source address may have at once, 5 to 1000.
	SourceTries int `yaml:"source_tries"`
	// TryEvery is how long it takes until one more is allowed to each, 1 s to 10 min.
	TryEvery time.Duration `yaml:"try_every"`
	// Hashing is how many passwords are hashed at once, 1 to 16; each takes 19 MiB and some 30 ms.
	Hashing int `yaml:"hashing"`
}

// Defaults are the values of a configuration that says nothing.
func Defaults() Config {
	return Config{
		SessionIdle: 30 * time.Minute, SessionMax: 12 * time.Hour,
		AccountTries: 5, SourceTries: 20, TryEvery: 30 * time.Second, Hashing: 2,
	}
}

// Validate names each setting that is out of bounds.
func (c Config) Validate() error {
	return errors.Join(
		within("session_idle", c.SessionIdle, time.Minute, 24*time.Hour),
		within("session_max", c.SessionMax, max(c.SessionIdle, time.Minute), 168*time.Hour),
		within("account_tries", c.AccountTries, 3, 20),
		within("source_tries", c.SourceTries, 5, 1000),
		within("try_every", c.TryEvery, time.Second, 10*time.Minute),
		within("hashing", c.Hashing, 1, 16),
	)
}

func within[T int | time.Duration](path string, v, low, high T) error {
	if v < low || v > high {
		return fmt.Errorf("%s: %v is out of bounds; write a value from %v to %v", path, v, low, high)
	}
	return nil
}
