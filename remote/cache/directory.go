package cache

import "github.com/imgfs/imgfs/remote/cache/internal/directory"

type (
	TempOptions  = directory.TempOptions
	TempFile     = directory.TempFile
	DirError     = directory.DirError
	PruneOptions = directory.PruneOptions
	PruneResult  = directory.PruneResult
	Other        = directory.Other
	Log          = directory.Log
)

const DefaultBudget = directory.DefaultBudget

var ErrFull = directory.ErrFull
