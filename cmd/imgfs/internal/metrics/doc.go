// Package metrics tells numbers about a process to Prometheus, and to whatever else reads
// its text format: families of samples ([Family]) are written by [Text], and served over
// HTTP by [Serve] on a socket that only this machine can reach ([ParseAddress]).
//
// It knows nothing of what is counted: the families are asked for at each scrape.
package metrics
