package registry

import (
	"context"
	"fmt"

	"github.com/imgfs/imgfs/remote"
)

// The limits of a list of tags.
const (
	maxTagPages = 1000
	maxTagPage  = 4 << 20  // bytes of a page
	maxTags     = 16 << 20 // bytes that all tags take in memory
	tagOverhead = 16       // of each, besides its text
)

// Tags returns all tags of the repository, in the registry's order. A list of
// more than 16 MiB, or of more than a thousand pages, is an error.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	var list tagList
	err := r.retry(ctx, r.Repository(), true, func(ctx context.Context, e *endpoint) error {
		list = tagList{}
		repo, err := e.oras(ctx)
		if err != nil {
			return err
		}
		return repo.Tags(ctx, "", list.add)
	})
	if err != nil {
		return nil, wrap("tags of "+r.Repository(), err)
	}
	return list.tags, nil
}

// A tagList gathers tags.
type tagList struct {
	tags  []string
	pages int
	size  int
}

// add takes a page, or says that the list has no end. To begin anew would be
// of no use.
func (l *tagList) add(page []string) error {
	if l.pages++; l.pages > maxTagPages {
		return &fault{class: remote.ErrUnavailable, text: fmt.Sprintf("the registry lists them on more than %d pages", maxTagPages)}
	}
	for _, tag := range page {
		if l.size += len(tag) + tagOverhead; l.size > maxTags {
			return &fault{class: remote.ErrUnavailable, text: fmt.Sprintf("the registry lists more than %d MiB of them", maxTags>>20)}
		}
	}
	l.tags = append(l.tags, page...)
	return nil
}
