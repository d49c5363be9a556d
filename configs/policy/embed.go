// Package policy holds the policy files that the program carries, for an agency to copy and change.
package policy

import _ "embed"

// Art29 is the policy of Article 29, P0.
//
//go:embed art29.yaml
var Art29 []byte
