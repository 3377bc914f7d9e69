package remote

import (
	"encoding/json"
	"fmt"
	"time"
)

// A Step is one step of the making of an image, as its config tells it. What it says is
// a stranger's claim.
type Step struct {
	Created   time.Time // zero: not told
	CreatedBy string    // the command; "": not told
	Author    string
	Comment   string
	// Layer is the position of the layer that the step made, 0 for the base, or -1 if it
	// made none.
	Layer int
}

// maxSteps is how many steps of a history are told.
const maxSteps = 1 << 14

// History returns the steps in which the image was made, the first one first, with one
// for each layer that the config has: where it tells of none, the step is empty. warning is a
// sentence, harmless to a terminal, about a history that does not fit the layers or
// cannot be read, else "". As podman does, it is taken to tell of the last layers if it
// tells of fewer than there are, and of the last steps if it tells of more: images are
// built on others whose history was lost.
func (img *Image) History() (steps []Step, warning string) {
	var config struct {
		History []json.RawMessage `json:"history"`
		RootFS  struct {
			DiffIDs []json.RawMessage `json:"diff_ids"`
		} `json:"rootfs"`
	}
	err := json.Unmarshal(img.Config, &config)
	layers := max(len(img.Layers), len(config.RootFS.DiffIDs)) // some may have been left out
	if err != nil {
		return layerSteps(layers), fmt.Sprintf("the history of the image cannot be read: %v", JSONError(err))
	}
	if len(config.History) > maxSteps {
		return layerSteps(layers), fmt.Sprintf("the history of the image has %d steps; imgfs shows up to %d", len(config.History), maxSteps)
	}
	made, unread := 0, 0
	for _, text := range config.History {
		step, ok := parseStep(text)
		if !ok {
			unread++
		}
		if step.Layer == 0 {
			made++
		}
		steps = append(steps, step)
	}
	switch {
	case made != layers:
		warning = fmt.Sprintf("the image's history tells of %s, and it has %d: their steps may be others", count(made, "layer"), layers)
		if made == 0 {
			warning = "the image does not tell how its layers were made"
		}
	case unread > 0:
		warning = count(unread, "step") + " of the image's history cannot be read"
	}
	layer := layers
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i].Layer == 0 {
			layer--
			steps[i].Layer = max(layer, -1)
		}
	}
	if layer > 0 {
		steps = append(layerSteps(layer), steps...)
	}
	return steps, warning
}

// count writes a number of things, with the name of one of them.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// layerSteps returns steps of which only the layer is known.
func layerSteps(n int) []Step {
	steps := make([]Step, n)
	for i := range steps {
		steps[i].Layer = i
	}
	return steps
}

// parseStep reads one step, whose layer is 0 if it made one. ok is false if it is none:
// then only that is known.
func parseStep(text json.RawMessage) (step Step, ok bool) {
	var said struct {
		Created    string `json:"created"`
		CreatedBy  string `json:"created_by"`
		Author     string `json:"author"`
		Comment    string `json:"comment"`
		EmptyLayer bool   `json:"empty_layer"`
	}
	err := json.Unmarshal(text, &said)
	if err != nil {
		// What there is of another kind must not take the layer away.
		var empty struct {
			EmptyLayer bool `json:"empty_layer"`
		}
		said.EmptyLayer = json.Unmarshal(text, &empty) == nil && empty.EmptyLayer
	}
	step = Step{CreatedBy: said.CreatedBy, Author: said.Author, Comment: said.Comment}
	if said.EmptyLayer {
		step.Layer = -1
	}
	if t, err := time.Parse(time.RFC3339Nano, said.Created); err == nil {
		step.Created = t
	}
	return step, err == nil
}
