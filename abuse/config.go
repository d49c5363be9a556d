package abuse

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hotline12345/gateway/configs/policy"
)

// Config is the section `abuse` of the configuration.
type Config struct {
	// PolicyFile is the agency's policy of Article 29; empty takes the P0 that the program carries.
	PolicyFile string `yaml:"policy_file"`
	// ShadowPolicyFile is another policy that is asked beside the one in force, and touches nobody: what it would have
	// done is counted and shown. Empty is none.
	ShadowPolicyFile string `yaml:"shadow_policy_file"`
	// ListsFile has the protected people, the shared numbers and the payphones, as CSV; empty is lists.csv in the
	// data directory. It is read again when flows and prompts are.
	ListsFile string `yaml:"lists_file"`
	// EpochLife is how long counters live under one pseudonym of a number, 168h to 2160h.
	EpochLife time.Duration `yaml:"epoch_life"`
}

// Defaults are the values of a configuration that says nothing.
func Defaults() Config { return Config{EpochLife: 90 * 24 * time.Hour} }

// Validate names each setting that is out of bounds; a policy file must be readable and right.
func (c Config) Validate() error {
	_, err := c.Policy()
	if err != nil {
		err = fmt.Errorf("policy_file: %w", err)
	}
	_, shadowErr := c.Shadow()
	if shadowErr != nil {
		shadowErr = fmt.Errorf("shadow_policy_file: %w", shadowErr)
	}
	return errors.Join(err, shadowErr, within("epoch_life", c.EpochLife, 168*time.Hour, 2160*time.Hour))
}

// Policy reads the policy that the configuration names.
func (c Config) Policy() (Policy, error) {
	if c.PolicyFile == "" {
		return ParsePolicy(policy.Art29)
	}
	return readPolicy(c.PolicyFile, "the P0 within")
}

// Shadow reads the policy that is asked beside it; nil when there is none.
func (c Config) Shadow() (*Policy, error) {
	if c.ShadowPolicyFile == "" {
		return nil, nil
	}
	p, err := readPolicy(c.ShadowPolicyFile, "none")
	return &p, err
}

func readPolicy(path, without string) (Policy, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Policy{}, fmt.Errorf("%w; write the path of a policy file, or nothing for %s", err, without)
	}
	return ParsePolicy(b)
}
