//go:build !linux

package main

import (
	"context"
	"errors"
)

// onTerminal is for Linux alone, as mounting is.
func onTerminal(context.Context, int, []string, ...string) (string, error) {
	return "", errors.New("the picture is made on Linux")
}
