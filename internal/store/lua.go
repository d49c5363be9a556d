package store

import (
	"embed"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var lua embed.FS

// own makes a script of this package; the head of its file in lua/ says what it takes and returns.
func (s *Store) own(name string) *redis.Script {
	text := func(file string) string {
		b, err := lua.ReadFile("lua/" + file + ".lua")
		if err != nil {
			panic(err) // the files are part of the program, and each is used by a test
		}
		return string(b)
	}
	return s.Script(name, text("clock")+text(name))
}

// named gives an error of a script its name in Go: the first word of a script's error says which it is.
func named(err error, word string, as error) error {
	if answer, ok := err.(redis.Error); ok && strings.HasPrefix(answer.Error(), word) {
		return fmt.Errorf("%w: %v", as, answer)
	}
	return err
}
