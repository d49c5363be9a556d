package console

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/invopop/jsonschema"
)

// pathParameter is a part of a route's path that stands for a value.
var pathParameter = regexp.MustCompile(`\{([a-z]+)\}`)

// openAPI makes the OpenAPI 3.1 document from the route table, so that the two cannot differ.
func openAPI(routes []route) ([]byte, error) {
	paths := map[string]map[string]any{}
	for _, r := range routes {
		if r.op == nil {
			continue
		}
		entry, err := r.describe()
		if err != nil {
			return nil, err
		}
		if paths[r.path] == nil {
			paths[r.path] = map[string]any{}
		}
		paths[r.path][strings.ToLower(r.method)] = entry
	}
	problem, err := schema(Problem{})
	if err != nil {
		return nil, err
	}
	doc := map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title":       "12345 hotline gateway",
			"version":     "1",
			"description": "Calls, call backs, queues, agents, trunks and gateways of the line. Durations are nanoseconds, times RFC 3339, callers masked.",
		},
		"paths": paths,
		"components": map[string]any{
			"securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer"}},
			"schemas":         map[string]any{"Problem": problem},
			"responses": map[string]any{"Problem": map[string]any{"description": "What is wrong (RFC 9457)",
				"content": map[string]any{"application/problem+json": map[string]any{
					"schema": map[string]any{"$ref": "#/components/schemas/Problem"}}}}},
		},
	}
	return json.MarshalIndent(doc, "", "  ")
}

// describe is a route's operation object.
func (r route) describe() (map[string]any, error) {
	entry := map[string]any{"operationId": r.op.id, "summary": r.op.summary, "security": []any{}}
	if r.roles != nil {
		entry["security"] = []any{map[string]any{"token": r.roles}}
	}
	var params []any
	for _, m := range pathParameter.FindAllStringSubmatch(r.path, -1) {
		params = append(params, map[string]any{"name": m[1], "in": "path", "required": true,
			"schema": map[string]any{"type": "string"}})
	}
	for _, flag := range r.op.flags {
		params = append(params, map[string]any{"name": flag, "in": "query", "schema": map[string]any{"type": "boolean"}})
	}
	if params != nil {
		entry["parameters"] = params
	}
	if r.op.in != nil {
		s, err := schema(r.op.in)
		if err != nil {
			return nil, fmt.Errorf("console: %s %s: %w", r.method, r.path, err)
		}
		entry["requestBody"] = map[string]any{"required": true, "content": content(s)}
	}
	ok := map[string]any{"204": map[string]any{"description": "Done"}}
	if r.op.out != nil {
		s, err := schema(r.op.out)
		if err != nil {
			return nil, fmt.Errorf("console: %s %s: %w", r.method, r.path, err)
		}
		ok = map[string]any{"200": map[string]any{"description": r.op.summary, "content": content(s)}}
	}
	ok["default"] = map[string]any{"$ref": "#/components/responses/Problem"}
	entry["responses"] = ok
	return entry, nil
}

func content(schema any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

// schema is a type's JSON schema, whole, and without the marks of a document of its own.
func schema(of any) (map[string]any, error) {
	r := jsonschema.Reflector{DoNotReference: true, Anonymous: true}
	b, err := json.Marshal(r.Reflect(of))
	if err != nil {
		return nil, err
	}
	var s map[string]any
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	delete(s, "$schema")
	delete(s, "$id")
	return s, nil
}
