package wait

import (
	"maps"
)

// The functions below read decoded JSON, and give the zero value where it has
// another shape.

func Object(value any) map[string]any {
	m, _ := value.(map[string]any)
	return m
}

func Objects(value any) []map[string]any {
	var all []map[string]any
	list, _ := value.([]any)
	for _, item := range list {
		all = append(all, Object(item))
	}
	return all
}

func Number(value any) int {
	n, _ := value.(float64)
	return int(n)
}

// Own gives an object a copy of the one at key, to be changed.
func Own(parent map[string]any, key string) map[string]any {
	child := map[string]any{}
	maps.Copy(child, Object(parent[key]))
	parent[key] = child
	return child
}
