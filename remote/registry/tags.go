package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

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

// tagsPatience is how long FirstTags may take.
const tagsPatience = 3 * time.Second

// errEnough ends a list of tags after its first page.
var errEnough = errors.New("enough tags")

// FirstTags returns the tags that the registry lists first, or some of them: those of
// its first page. It is for hints, so it asks the registry itself, once, and waits for
// no more than three seconds.
func (r *Repository) FirstTags(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, tagsPatience)
	defer cancel()
	endpoints, err := r.endpointsFor(ctx, true)
	if err != nil {
		return nil, err
	}
	budget := newRetryBudget(r.client.opts, false)
	budget.tries = 1
	var list tagList
	err = budget.retry(ctx, r.Repository(), func(ctx context.Context) error {
		repo, err := endpoints[len(endpoints)-1].oras(ctx)
		if err != nil {
			return err
		}
		err = repo.Tags(ctx, "", func(page []string) error { return cmp.Or(list.add(page), errEnough) })
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
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
