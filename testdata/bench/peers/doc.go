// Package peers runs what imgfs is measured beside and with: decoders of gzip,
// as libraries and as programs, and Debian's docker-registry.
package peers
