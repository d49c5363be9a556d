package recording

import (
	"errors"
	"fmt"
	"time"

	"filippo.io/age"
)

// Config is the section `recording`.
type Config struct {
	// Dir holds the recordings. It should be a disk of its own.
	Dir string `yaml:"dir"`
	// Recipients are the agency's age public keys, at least one. Each can open every recording.
	Recipients []string `yaml:"recipients"`
	// ListeningKeyFile is an age private key that the console plays recordings with; "" is none.
	ListeningKeyFile string `yaml:"listening_key_file"`
	// MaxLength bounds a recording; the call goes on without it. 1m to 24h.
	MaxLength time.Duration `yaml:"max_length"`
	// MaxOpen bounds the recordings under way at once. 1 to 100,000.
	MaxOpen int `yaml:"max_open"`
	// Writers is how many goroutines seal and write. 1 to 64.
	Writers int `yaml:"writers"`
	// Retention is how long a recording is kept; a legal hold overrides it. 24h and up.
	Retention time.Duration `yaml:"retention"`
	// Watermarks are shares of free disk space.
	Watermarks Watermarks `yaml:"watermarks"`
}

// Watermarks are shares of the disk, 0 to 1, that must be free.
type Watermarks struct {
	Alarm    float64 `yaml:"alarm"`    // below it the log and the metric say so
	Optional float64 `yaml:"optional"` // below it nothing is kept that no rule asks for
	Stop     float64 `yaml:"stop"`     // below it calls go on unrecorded
}

// Defaults is the section's default; Recipients must be added.
func Defaults() Config {
	return Config{
		Dir:        "data/recordings",
		MaxLength:  4 * time.Hour,
		MaxOpen:    2000,
		Writers:    2,
		Retention:  180 * 24 * time.Hour,
		Watermarks: Watermarks{Alarm: 0.20, Optional: 0.10, Stop: 0.05},
	}
}

// Validate tells everything that is wrong with the section.
func (c Config) Validate() error {
	var errs []error
	bad := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf(path+": "+format, args...))
	}
	if c.Dir == "" {
		bad("dir", "is empty; write a directory, e.g. /var/lib/hotline/recordings")
	}
	if len(c.Recipients) == 0 {
		bad("recipients", "is empty; write at least one age public key, e.g. the output of age-keygen -y key.txt")
	}
	for i, r := range c.Recipients {
		if _, err := parseRecipient(r); err != nil {
			bad(fmt.Sprintf("recipients[%d]", i), "%q is not an age public key; write one that begins with age1", r)
		}
	}
	if c.MaxLength < time.Minute || c.MaxLength > 24*time.Hour {
		bad("max_length", "%v is out of range; write 1m to 24h", c.MaxLength)
	}
	if c.MaxOpen < 1 || c.MaxOpen > 100_000 {
		bad("max_open", "%d is out of range; write 1 to 100000", c.MaxOpen)
	}
	if c.Writers < 1 || c.Writers > 64 {
		bad("writers", "%d is out of range; write 1 to 64", c.Writers)
	}
	if c.Retention < 24*time.Hour {
		bad("retention", "%v is too short; write 24h or more", c.Retention)
	}
	if w := c.Watermarks; w.Stop < 0 || w.Stop > w.Optional || w.Optional > w.Alarm || w.Alarm >= 1 {
		bad("watermarks", "are out of order; write 0 <= stop <= optional <= alarm < 1, e.g. 0.05, 0.10, 0.20")
	}
	return errors.Join(errs...)
}

func parseRecipient(s string) (age.Recipient, error) {
	if r, err := age.ParseHybridRecipient(s); err == nil {
		return r, nil
	}
	return age.ParseX25519Recipient(s)
}
