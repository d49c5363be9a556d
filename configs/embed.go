// Package configs holds what is built into the program: flows, prompts, and an example to start from.
package configs

import "embed"

// Flows holds flows/*.yaml, the call flows (package ivr).
//
//go:embed flows/*.yaml
var Flows embed.FS

// Prompts holds prompts/prompts.tsv and the voices in prompts/{zh,en,common}/*.al (package ivr/prompt).
//
//go:embed prompts
var Prompts embed.FS

// Example is hotline.yaml: a configuration to start from.
//
//go:embed hotline.yaml
var Example []byte
