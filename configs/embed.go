// Package configs holds the defaults that are built into the program: flows and prompts.
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
