//go:build race

package main

// raced tells that the race detector is in the program: it multiplies the memory.
const raced = true
