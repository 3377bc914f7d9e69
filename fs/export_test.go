package fs

import (
	"context"
	"strings"

	"github.com/imgfs/imgfs/layerindex"
)

// MergeWithin is Merge of layers that are not looked through again, with a bound
// on all steps.
func MergeWithin(ctx context.Context, steps int64, layers []Layer) (*Tree, error) {
	b, err := NewBuilder(ctx, nil)
	if err != nil {
		return nil, err
	}
	b.maxSteps = steps
	for _, l := range layers {
		if err := b.Apply(l); err != nil {
			return nil, err
		}
	}
	return b.Tree()
}

// MergeCounted merges a layer whose lists of xattrs do not change, and returns
// what that counts.
func MergeCounted(ctx context.Context, l Layer) (*Tree, int64, error) {
	budget := layerindex.NewBudget(0, nil)
	b, err := NewBuilder(ctx, &BuilderOptions{Budget: budget})
	if err != nil {
		return nil, 0, err
	}
	l.Stable = true
	if err := b.Apply(l); err != nil {
		return nil, 0, err
	}
	t, err := b.Tree()
	return t, budget.Used(), err
}

// MergeSurvey merges layers, with a survey of them, and returns what that counts.
func MergeSurvey(ctx context.Context, layers []Layer) (*Tree, *Survey, *layerindex.Budget, error) {
	budget := layerindex.NewBudget(0, nil)
	b, err := NewBuilder(ctx, &BuilderOptions{Budget: budget, Survey: true})
	if err != nil {
		return nil, nil, nil, err
	}
	for _, l := range layers {
		if err := b.Apply(l); err != nil {
			return nil, nil, nil, err
		}
	}
	t, err := b.Tree()
	return t, b.Survey(), budget, err
}

// HistoryAt is History of a path that no symlink is followed on.
func (s *Survey) HistoryAt(path string) []Version {
	at, ok := s.descend(rootPath, strings.Split(path, "/"))
	if !ok {
		return nil
	}
	return s.history(at)
}
