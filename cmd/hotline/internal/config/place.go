package config

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// Level is the log level as slog has it.
func (c Config) Level() slog.Level { return levels[c.LogLevel] }

// overlay is one --set as a piece of YAML.
type overlay struct{ text, path, yaml string }

func yamls(overlays []overlay) (out [][]byte) {
	for _, o := range overlays {
		out = append(out, []byte(o.yaml))
	}
	return out
}

var setPath = regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_]+)*$`)

// parseSets makes YAML of "a.b.c=value". The value is YAML itself, so a list or a map can be given.
func parseSets(sets []string) ([]overlay, error) {
	var out []overlay
	for _, s := range sets {
		path, value, ok := strings.Cut(s, "=")
		if !ok || !setPath.MatchString(path) {
			return nil, fmt.Errorf("--set %s: write it as path=value, e.g. --set sip.max_calls=200; a list is given whole, e.g. --set 'sip.own_numbers=[12345]'", s)
		}
		var b strings.Builder
		keys := strings.Split(path, ".")
		for i, k := range keys {
			fmt.Fprintf(&b, "%s%s:", strings.Repeat("  ", i), k)
			if i < len(keys)-1 {
				b.WriteByte('\n')
			}
		}
		fmt.Fprintf(&b, " %s\n", value)
		out = append(out, overlay{text: s, path: path, yaml: b.String()})
	}
	return out, nil
}

// faultPath finds the path that a check's error begins with.
var faultPath = regexp.MustCompile(`^([a-z0-9_]+(?:\.[a-zA-Z0-9_-]+|\[\d+\])*): `)

// place adds to each fault where its path stands: file, line, column and an excerpt.
func place(err error, src []byte, file string, overlays []overlay) error {
	tree, parseErr := parser.ParseBytes(src, 0)
	if parseErr != nil {
		return err // it decoded a moment ago: cannot be
	}
	var errs []error
	for _, e := range parts(err) {
		m := faultPath.FindStringSubmatch(e.Error())
		if m == nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, e))
			continue
		}
		if set := bySet(m[1], overlays); set != "" {
			errs = append(errs, fmt.Errorf("--set %s: %w", set, e))
			continue
		}
		errs = append(errs, placed(e, m[1], src, file, tree))
	}
	return errors.Join(errs...)
}

func bySet(path string, overlays []overlay) string {
	for _, o := range overlays {
		if path == o.path || strings.HasPrefix(path, o.path+".") || strings.HasPrefix(path, o.path+"[") {
			return o.text
		}
	}
	return ""
}

// placed finds the fault's node, or that of the nearest section that the file has.
func placed(fault error, path string, src []byte, file string, tree *ast.File) error {
	for at := path; at != ""; at = parent(at) {
		p, err := yaml.PathString("$." + quoted(at))
		if err != nil {
			continue
		}
		node, err := p.FilterFile(tree)
		if err != nil || node == nil || node.GetToken() == nil {
			continue
		}
		pos := node.GetToken().Position
		excerpt, err := p.AnnotateSource(src, false)
		if at != path || err != nil {
			return fmt.Errorf("%s:%d:%d: %w", file, pos.Line, pos.Column, fault)
		}
		return fmt.Errorf("%s:%d:%d: %w\n%s", file, pos.Line, pos.Column, fault, strings.TrimRight(string(excerpt), "\n"))
	}
	return fmt.Errorf("%s: %w", file, fault)
}

// quoted writes keys that are no plain words as YAML paths want them.
func quoted(path string) string {
	keys := strings.Split(path, ".")
	for i, k := range keys {
		name, index, _ := strings.Cut(k, "[")
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
			name = "'" + name + "'"
		}
		if index != "" {
			name += "[" + index
		}
		keys[i] = name
	}
	return strings.Join(keys, ".")
}

func parent(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}
