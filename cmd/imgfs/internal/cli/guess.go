package cli

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Nearest returns those of words that somebody may have meant who typed word, the
// nearest ones first and at most three. Case does not count. Words that are as far
// away as their own length are not near.
func Nearest(word string, words []string) []string {
	typed := strings.ToLower(strings.TrimSpace(word))
	if len(typed) > maxTyped {
		return nil
	}
	most := min(2, utf8.RuneCountInString(typed)/2)
	var near [3][]string // by their distance
	for _, w := range words {
		if len(w) > maxTyped {
			continue
		}
		if d := distance([]rune(typed), []rune(strings.ToLower(w))); d <= most && !slices.Contains(near[d], w) {
			near[d] = append(near[d], w)
		}
	}
	all := slices.Concat(near[0], near[1], near[2])
	return all[:min(len(all), 3)]
}

// maxTyped is how long a word may be that is compared with others, in bytes. What
// comparing costs grows with its square.
const maxTyped = 128

// distance returns how many runes must be added, left out, replaced, or swapped with
// their neighbour to make b of a.
func distance(a, b []rune) int {
	rows := [3][]int{}
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
	}
	before, last, now := rows[0], rows[1], rows[2]
	for j := range last {
		last[j] = j
	}
	for i, x := range a {
		now[0] = i + 1
		for j, y := range b {
			change := last[j]
			if x != y {
				change++
			}
			now[j+1] = min(change, last[j+1]+1, now[j]+1)
			if i > 0 && j > 0 && x == b[j-1] && a[i-1] == y {
				now[j+1] = min(now[j+1], before[j-1]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(b)]
}
